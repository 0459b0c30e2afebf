namespace Vmm.Storage.Qcow2;

/// <summary>Options of a disk that is a chain of images.</summary>
public sealed record Qcow2DiskOptions
{
    /// <summary>Most memory for pieces of L2 tables, in bytes; of all images of the chain together.</summary>
    public int CacheBytes { get; init; } = 2 << 20;

    /// <summary>
    /// Clusters that become free are neither handed out again nor punched before the end of the disk: somebody reads the same file by
    /// tables of an earlier time until then.
    /// </summary>
    public bool KeepsFreed { get; init; }

    /// <summary>
    /// Told once when the image was stopped because its tables contradict each other. From any thread; it must not use the disk.
    /// </summary>
    public Action<BlockException>? Damaged { get; init; }

    /// <summary>
    /// Starts the metadata's thread, which asks for <see cref="Vmm.Interop.BlockFile.ImageNeeds"/>; null: in the usual way.
    /// </summary>
    public Action<Thread>? Start { get; init; }

    /// <summary>Hears that this disk writes tables of its top image; null: nobody reads them meanwhile.</summary>
    internal TableWrites? TellsWrites { get; init; }

    /// <summary>Says that somebody writes tables of an image below the top; null: nobody does.</summary>
    internal TableWrites? HearsWrites { get; init; }

    /// <summary>Called by that thread before it does anything; null: nobody wants to know.</summary>
    public Action? Ready { get; init; }
}
