namespace Vmm.Storage.Qcow2;

/// <summary>
/// Brings the disk's content up into its top image, range by range, while others use the disk. For one thread: it has a loop and a node of
/// its own.
/// </summary>
public sealed class ChainPopulate : IDisposable
{
    private readonly int _bound;
    private readonly JobLane _lane = new();
    private readonly Qcow2Node _node;

    /// <summary>Begins; nothing is brought up yet.</summary>
    /// <param name="disk">The disk; it is writable.</param>
    /// <param name="bound">The first image, counted from the top, whose content stays where it is; the number of images for none.</param>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    public ChainPopulate(Qcow2Disk disk, int bound)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bound, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bound, disk.Images);
        _bound = bound;
        try
        {
            _node = (Qcow2Node)disk.CreateNode(_lane.Loop, 4);
        }
        catch
        {
            _lane.Dispose();
            throw;
        }
    }

    /// <summary>Bytes that were copied so far.</summary>
    public ulong Copied => _node.Populated;

    /// <summary>Brings a range up; returns when that is over. Clusters are brought whole.</summary>
    /// <param name="offset">The first byte.</param>
    /// <param name="length">Bytes.</param>
    public DiskStatus Bring(ulong offset, uint length)
    {
        _node.Populate(_lane.Prepare(BlockKind.Write, offset, length), _bound);
        return _lane.Await();
    }

    /// <summary>What was brought up is stable when this returns, and the tables that say so.</summary>
    public DiskStatus Flush()
    {
        _node.Submit(_lane.Prepare(BlockKind.Flush));
        return _lane.Await();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _node.Dispose();
        _lane.Dispose();
    }
}
