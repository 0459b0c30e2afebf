using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Writes what images of a chain have into the image below them, range by range, while others use the disk. That image is written only
/// where those above hide it, so the disk's content never changes. For one thread: it has a loop and nodes of its own.
/// </summary>
public sealed class ChainCommit : IDisposable
{
    /// <summary>Most bytes of a range.</summary>
    public const int MostBytes = 1 << 20;

    private readonly int _from, _bound;
    private readonly JobLane _lane = new();
    private readonly Qcow2Node _node;
    private readonly IBlockNode _target;
    private readonly NativeArray<byte> _memory = new(MostBytes, 4096);
    private readonly NativeArray<IoVector> _vector = new(1);
    private readonly ulong _targetSize;

    /// <summary>Begins; nothing is written yet.</summary>
    /// <param name="disk">The chain; the images from <paramref name="from"/> on are not written through it meanwhile.</param>
    /// <param name="from">The first image whose content goes down, counted from the top.</param>
    /// <param name="bound">The image that gets it.</param>
    /// <param name="target">
    /// That image as a disk of its own: a raw file, or a qcow2 disk with <see cref="Qcow2DiskOptions.KeepsFreed"/> over the images below.
    /// It has room for all that goes down (<see cref="RoomFor"/>).
    /// </param>
    /// <param name="targetSize">Bytes of the target's disk.</param>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    public ChainCommit(Qcow2Disk disk, int from, int bound, IDiskBackend target, ulong targetSize)
    {
        (_from, _bound, _targetSize) = (from, bound, targetSize);
        Size = disk.Geometry.CapacityBytes;
        try
        {
            _node = (Qcow2Node)disk.CreateNode(_lane.Loop, 4);
            _target = target.CreateNode(_lane.Loop, 4);
        }
        catch
        {
            _node?.Dispose();
            Free();
            throw;
        }
    }

    /// <summary>Bytes to go through.</summary>
    public ulong Size { get; }

    /// <summary>Bytes that were copied so far.</summary>
    public ulong Copied { get; private set; }

    /// <summary>Where a failure was: true in the target, false in the images above it.</summary>
    public bool TargetFailed { get; private set; }

    /// <summary>Bytes of the disk that an image needs to take what the disk sees of images from <paramref name="from"/> on.</summary>
    public static ulong RoomFor(Qcow2Disk disk, int from) =>
        Math.Min(disk.Geometry.CapacityBytes, disk.State.Chain.Layers[from].DiskSize);

    /// <summary>Writes a range down; returns when that is over.</summary>
    /// <param name="offset">The first byte.</param>
    /// <param name="length">Bytes, at most <see cref="MostBytes"/>.</param>
    public DiskStatus Write(ulong offset, int length)
    {
        ulong end = offset + (ulong)length, held = offset; // data from "held" to "offset" is copied at once
        DiskStatus status = DiskStatus.Ok;
        while (status == DiskStatus.Ok && offset < end)
        {
            status = Ask(offset, end, out Extent extent);
            ulong next = offset + extent.Length;
            bool isAbove = extent.Layer < _bound;
            if (status != DiskStatus.Ok || !isAbove || extent.Kind == ExtentKind.Zero)
            {
                status = status == DiskStatus.Ok ? Copy(held, offset) : status;
                status = status == DiskStatus.Ok && isAbove ? Zero(offset, next) : status;
                held = next;
            }

            offset = next;
        }

        return status == DiskStatus.Ok ? Copy(held, end) : status;
    }

    /// <summary>What was written down is stable when this returns.</summary>
    public DiskStatus Flush()
    {
        TargetFailed = true;
        _target.Submit(_lane.Prepare(BlockKind.Flush));
        return _lane.Await();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _node.Dispose();
        _target.Dispose();
        Free();
    }

    private void Free()
    {
        _lane.Dispose();
        _memory.Dispose();
        _vector.Dispose();
    }

    private DiskStatus Ask(ulong offset, ulong end, out Extent extent)
    {
        TargetFailed = false;
        _node.Map(_lane.Prepare(BlockKind.Read, offset, (uint)(end - offset)), _from);
        DiskStatus status = _lane.Await();
        extent = status == DiskStatus.Ok ? _node.Mapped : default;
        return status;
    }

    private DiskStatus Copy(ulong from, ulong to)
    {
        to = Math.Min(to, _targetSize);
        if (from >= to)
        {
            return DiskStatus.Ok;
        }

        _vector.Span[0] = new IoVector(_memory.AddressOf(0), (nuint)(to - from));
        BlockRequest read = _lane.Prepare(BlockKind.Read, from, (uint)(to - from));
        read.SetData(_vector.Span);
        TargetFailed = false;
        _node.ReadBelow(read, _from);
        DiskStatus status = _lane.Await();
        if (status != DiskStatus.Ok)
        {
            return status;
        }

        BlockRequest write = _lane.Prepare(BlockKind.Write, from, (uint)(to - from));
        write.SetData(_vector.Span);
        TargetFailed = true;
        _target.Submit(write);
        Copied += to - from;
        return _lane.Await();
    }

    private DiskStatus Zero(ulong from, ulong to)
    {
        to = Math.Min(to, _targetSize);
        if (from >= to)
        {
            return DiskStatus.Ok;
        }

        TargetFailed = true;
        _target.Submit(_lane.Prepare(BlockKind.WriteZeroes, from, (uint)(to - from), BlockFlags.MayUnmap));
        return _lane.Await();
    }
}
