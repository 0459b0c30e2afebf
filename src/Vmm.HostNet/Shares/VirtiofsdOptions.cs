using Vmm.Interop;

namespace Vmm.HostNet.Shares;

/// <summary>What a virtiofsd serves.</summary>
public sealed record VirtiofsdOptions
{
    /// <summary>The folder.</summary>
    public required string Folder { get; init; }

    /// <summary>Nothing in it is changed.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>
    /// Finds the folder anew at each start and holds it, so that no link leads elsewhere; null: <see cref="Folder"/> as the kernel finds
    /// it.
    /// Without the privilege to mount what is held it is a check only.
    /// </summary>
    public Func<FolderFile>? Hold { get; init; }

    /// <summary>
    /// Tells its processes from others, so that one is found and killed that was started by a process that is gone; null: they are not.
    /// </summary>
    public string? Mark { get; init; }

    /// <summary>Takes a line that the program writes to its standard error; null: nobody reads them.</summary>
    public Action<string>? Said { get; init; }

    /// <summary>The program; null: it is looked for where Debian and its own makefile put it.</summary>
    public string? Program { get; init; }
}
