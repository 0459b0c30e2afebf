namespace Vmm.Storage;

/// <summary>What a disk is like.</summary>
/// <param name="CapacityBytes">Size in bytes, a multiple of 512.</param>
/// <param name="LogicalBlockSize">Unit in which it is addressed best, in bytes (512 or more).</param>
/// <param name="PhysicalBlockSize">Unit that is written without read-modify-write, in bytes.</param>
/// <param name="ReadOnly">Writes are refused.</param>
/// <param name="Abilities">Optional requests it takes.</param>
public readonly record struct BlockGeometry(
    ulong CapacityBytes, int LogicalBlockSize, int PhysicalBlockSize, bool ReadOnly, DiskAbilities Abilities)
{
    /// <summary>Shortest transfer without a penalty, in bytes; 0 is a physical block.</summary>
    public uint MinimumIo { get; init; }

    /// <summary>Length of the best transfers, in bytes; 0 is not known.</summary>
    public uint OptimalIo { get; init; }

    /// <summary>Where the first physical block begins, in bytes of the disk.</summary>
    public uint AlignmentOffset { get; init; }

    /// <summary>Unit in which space is given back, in bytes; 0 is a physical block.</summary>
    public uint DiscardGranularity { get; init; }
}

/// <summary>
/// The seam of storage: takes requests on the thread of one <see cref="Vmm.Io.IoLoop"/>. A node is a leaf (a file, memory) or stands before
/// another node (a router). A request is checked by the leaf: a range beyond the disk, or a write to a read-only one, ends as
/// <see cref="DiskStatus.IoError"/>. Requests in flight may end in any order; who needs an order waits, or flushes. Submitting allocates
/// nothing. Dispose waits for what is in flight, and flushes nothing.
/// </summary>
public interface IBlockNode : IDisposable
{
    /// <summary>What the disk is like.</summary>
    BlockGeometry Geometry { get; }

    /// <summary>Requests that this node has and that have not ended.</summary>
    int InFlight { get; }

    /// <summary>
    /// Takes a request, which ends by <see cref="BlockRequest.Complete"/>, never inside this call. It belongs to the node's loop.
    /// </summary>
    void Submit(BlockRequest request);

    /// <summary>
    /// True when write-zeroes would write its zeros as data, as far as is known: it costs what a write of its length costs.
    /// </summary>
    bool WritesZeroesAsData(bool mayUnmap);

    /// <summary>
    /// Waits for what is in flight, makes stable what was written through this node and not flushed since, and closes it; a node before
    /// another one leaves that to its owner. Nothing is submitted any more. On the loop's thread, which goes on delivering completions
    /// (<see cref="BlockNodes.FlushAndClose"/> does). It is closed whether this succeeds or not.
    /// </summary>
    /// <exception cref="BlockException">What was written last may not be on stable storage.</exception>
    ValueTask FlushAndCloseAsync();
}
