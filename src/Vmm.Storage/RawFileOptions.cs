namespace Vmm.Storage;

/// <summary>How the host's page cache takes part.</summary>
public enum DiskCacheMode
{
    /// <summary>O_DIRECT where file system and alignment allow it; the page cache otherwise.</summary>
    Direct,

    /// <summary>Through the host's page cache.</summary>
    Buffered,
}

/// <summary>Options of a raw disk.</summary>
public sealed record RawFileOptions
{
    /// <summary>Open for reading only; several machines may share the disk then.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Use of the host's page cache.</summary>
    public DiskCacheMode Cache { get; init; } = DiskCacheMode.Direct;

    /// <summary>Lets the guest give space back (discard, unmapping write-zeroes).</summary>
    public bool Discard { get; init; } = true;

    /// <summary>
    /// The file holds an image of some format, not the disk itself: it may have any size, grows by writing, and reads as zeros behind its
    /// end.
    /// </summary>
    public bool IsImage { get; init; }

    /// <summary>
    /// Names the VM that a process runs, for the error that says who has the disk; null for one that runs none. Null: nobody knows VMs.
    /// </summary>
    public Func<int, string?>? VmOf { get; init; }
}
