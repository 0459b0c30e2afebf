using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage;

/// <summary>What one thread copies with: a loop, a node of each disk, and memory for one chunk. One request at a time.</summary>
internal sealed class CopyLane : IDisposable
{
    private readonly IDiskBackend _from, _to;
    private readonly WriteRanges _ranges;
    private readonly JobLane _lane = new();
    private readonly NativeArray<byte> _memory = new(DiskMirror.ChunkBytes, 4096);
    private readonly NativeArray<IoVector> _vector = new(1);
    private readonly EventFd _granted = new();
    private readonly Doorbell _doorbell;
    private int _ticket;

    /// <summary>On the thread that copies.</summary>
    /// <exception cref="KernelException">Out of rings or descriptors.</exception>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    internal CopyLane(IDiskBackend source, IDiskBackend target, WriteRanges ranges)
    {
        (_from, _to, _ranges) = (source, target, ranges);
        _doorbell = _lane.Loop.Watch(_granted, rung: null);
        Source = source.CreateNode(_lane.Loop, 1);
        Target = target.CreateNode(_lane.Loop, 1);
        ranges.Reserve(1);
    }

    /// <summary>Where it reads.</summary>
    internal IBlockNode Source { get; }

    /// <summary>Where it writes.</summary>
    internal IBlockNode Target { get; }

    /// <summary>The memory.</summary>
    internal Span<byte> Data => _memory.Span;

    /// <summary>Waits until the range is this thread's alone.</summary>
    internal void Enter(ulong begin, ulong end)
    {
        _ticket = _ranges.Enter(begin, end, exclusive: true, _granted, out _);
        while (!_ranges.IsGranted(_ticket))
        {
            _lane.Loop.Wait();
            _lane.Loop.Poll();
        }
    }

    /// <summary>Gives the range back.</summary>
    internal void Leave() => _ranges.Leave(_ticket);

    /// <summary>What is at the first bytes of a range of the source, as far as it knows without reading: at most to its end.</summary>
    internal MappedRange Look(ulong at, ulong end) => Look(Source, _from, at, end);

    /// <summary>The target is known to read as zeros in a range.</summary>
    internal bool IsZeroAlready(ulong at, ulong end)
    {
        while (at < end)
        {
            MappedRange range = Look(Target, _to, at, end);
            if (!range.IsZero)
            {
                return false;
            }

            at += range.Length;
        }

        return true;
    }

    /// <summary>Carries out a request; a read or write uses the memory from <paramref name="from"/> on.</summary>
    internal DiskStatus Run(IBlockNode disk, BlockKind kind, ulong offset, uint length, BlockFlags flags = BlockFlags.None, int from = 0)
    {
        BlockRequest request = _lane.Prepare(kind, offset, length, flags);
        if (kind is BlockKind.Read or BlockKind.Write)
        {
            _vector.Span[0] = new IoVector(_memory.AddressOf(from), length);
            request.SetData(_vector.Span);
        }

        disk.Submit(request);
        return _lane.Await();
    }

    public void Dispose()
    {
        Source.Dispose();
        Target.Dispose();
        _ranges.Return(1);
        _lane.Loop.Unwatch(_doorbell);
        _lane.Dispose();
        _granted.Dispose();
        _memory.Dispose();
        _vector.Dispose();
    }

    private MappedRange Look(IBlockNode node, IDiskBackend disk, ulong at, ulong end)
    {
        if (node is not IMappedNode mapped)
        {
            ulong data = Math.Min(end, disk.DataFrom(at));
            return new MappedRange((data > at ? data : end) - at, IsZero: data > at, Layer: 0);
        }

        mapped.Ask(_lane.Prepare(BlockKind.Read, at, (uint)(end - at)));
        return _lane.Await() == DiskStatus.Ok ? mapped.Answer
            : new MappedRange(end - at, IsZero: false, Layer: 0); // who reads it is told what is wrong
    }
}
