namespace Vmm.Placement;

/// <summary>The firmware of this host: two files, its code and its variables as a new machine has them.</summary>
/// <param name="Code">Read only.</param>
/// <param name="Variables">What a machine's own variables begin with.</param>
public sealed record FirmwareFiles(string Code, string Variables)
{
    private const string Folder = "/usr/share/OVMF";

    /// <summary>The build without system management mode of Debian's package ovmf, bookworm's and later.</summary>
    private static readonly FirmwareFiles s_ovmf = new(Path.Combine(Folder, "OVMF_CODE_4M.fd"), Path.Combine(Folder, "OVMF_VARS_4M.fd"));

    /// <summary>The firmware that is installed.</summary>
    /// <exception cref="HostMismatchException">There is none; the message names the package.</exception>
    public static FirmwareFiles Find()
    {
        foreach (string file in (ReadOnlySpan<string>)[s_ovmf.Code, s_ovmf.Variables])
        {
            if (!File.Exists(file))
            {
                throw new HostMismatchException(
                    $"UEFI firmware: {file} is missing: install the package ovmf (apt install ovmf), or give the VM a kernel");
            }
        }

        return s_ovmf;
    }

    /// <summary>Makes a file of variables where there is none: whole, or not at all. Only its owner reads it.</summary>
    /// <exception cref="IOException">It cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may it be.</exception>
    public static void CreateVariables(string path, string template)
    {
        if (File.Exists(path))
        {
            return;
        }

        string draft = path + ".new";
        byte[] variables = File.ReadAllBytes(template);
        using (FileStream file = new(draft, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }))
        {
            file.Write(variables);
            file.Flush(flushToDisk: true);
        }

        File.Move(draft, path, overwrite: false);
    }
}
