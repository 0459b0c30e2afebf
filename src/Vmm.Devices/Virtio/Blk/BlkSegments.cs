using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Discards and write-zeroes of several segments (virtio 1.2 section 5.2.6): storage gets one segment at a time, in the driver's order, and
/// the request ends with the last one, or with the first that fails. Stands behind the router, so that a request is held, counted and
/// limited as one. A request that is issued again goes on with the segment that failed.
/// </summary>
/// <param name="target">Where segments go; it stays the caller's.</param>
/// <param name="slots">Number of requests, which are told apart by their tokens.</param>
internal sealed class BlkSegments(IBlockNode target, int slots) : IBlockNode, IBlockOwner
{
    /// <summary>Most segments of one request (max_discard_seg, max_write_zeroes_seg).</summary>
    internal const int Most = 16;

    private IBlockNode _target = target;
    private readonly Segment[] _segments = new Segment[slots * Most];
    private readonly byte[] _counts = new byte[slots], _next = new byte[slots];

    public BlockGeometry Geometry => _target.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => _target.WritesZeroesAsData(mayUnmap);

    /// <summary>
    /// Checks the segments of a discard or write-zeroes and prepares the request that does them. What is wrong with one of them fails the
    /// whole request, before anything was done. A request that stays <see cref="BlockKind.None"/> has nothing to do.
    /// </summary>
    internal BlkStatus Prepare(BlockRequest request, bool discard, ReadOnlySpan<byte> asked, in BlkBounds bounds, BlockFlags flags)
    {
        int slot = request.Token, count = 0;
        ulong total = 0;
        for (; asked.Length >= BlkRange.Length; asked = asked[BlkRange.Length..])
        {
            BlkRange range = BlkRange.Read(asked);
            if ((range.Flags & (discard ? ~0u : ~BlkRange.Unmap)) != 0)
            {
                return BlkStatus.Unsupported; // 5.2.6.2: unknown flags, and unmap in a discard
            }

            uint most = discard ? BlkConfig.MaxDiscardSectors : BlkConfig.MaxWriteZeroesSectors;
            if (range.Sectors > most || !bounds.Allow(range.Sector, range.Sectors * 512UL))
            {
                return BlkStatus.IoError;
            }

            if (range.Sectors > 0)
            {
                BlockFlags unmap = (range.Flags & BlkRange.Unmap) != 0 ? BlockFlags.MayUnmap : BlockFlags.None;
                _segments[(slot * Most) + count++] = new(range.Sector * 512, range.Sectors * 512, flags | unmap);
                total += range.Sectors * 512UL;
            }
        }

        _counts[slot] = (byte)count;
        _next[slot] = 0;
        if (count > 0)
        {
            Segment first = _segments[slot * Most];
            uint length = (uint)Math.Min(total, uint.MaxValue); // what the limit counts; the segments have their own
            request.Prepare(discard ? BlockKind.Discard : BlockKind.WriteZeroes, first.Offset, length, first.Flags);
        }

        return BlkStatus.Ok;
    }

    /// <summary>Segments go there from now on: nothing is in flight. A request that is kept goes on where it was.</summary>
    internal void Retarget(IBlockNode next) => _target = next;

    public void Submit(BlockRequest request)
    {
        if (request.Kind is BlockKind.Discard or BlockKind.WriteZeroes && _counts[request.Token] > 1)
        {
            InFlight++;
            SubmitNext(request);
        }
        else
        {
            _target.Submit(request);
        }
    }

    public void Completed(BlockRequest request, DiskStatus status)
    {
        int slot = request.Token;
        if (status == DiskStatus.Ok && ++_next[slot] < _counts[slot])
        {
            SubmitNext(request);
            return;
        }

        InFlight--;
        request.Complete(status);
    }

    /// <summary>It has nothing of its own: who closes it has waited for the end of what was submitted.</summary>
    public ValueTask FlushAndCloseAsync() => default;

    public void Dispose()
    {
        // As above.
    }

    private void SubmitNext(BlockRequest request)
    {
        Segment segment = _segments[(request.Token * Most) + _next[request.Token]];
        request.TakePart(segment.Offset, segment.Length, segment.Flags);
        request.PassThrough(this);
        _target.Submit(request);
    }

    private readonly record struct Segment(ulong Offset, uint Length, BlockFlags Flags);
}
