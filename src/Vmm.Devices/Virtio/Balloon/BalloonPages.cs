using Vmm.Memory;

namespace Vmm.Devices.Virtio.Balloon;

/// <summary>
/// Which 4 KiB pages the guest has put into the balloon, and giving their memory back to the host. The account makes it harmless to inflate
/// a page twice or one that is not RAM. Huge host pages stay with the VM (<see cref="GuestMemory.Discard"/>). One thread at a time.
/// </summary>
internal sealed class BalloonPages(GuestMemory memory)
{
    /// <summary>Bytes of one balloon page, whatever the page sizes of guest and host (virtio 1.2 section 5.5.6).</summary>
    public const ulong PageBytes = 4096;

    private const int PagesPerChunk = 32768; // 128 MiB of addresses in 4 KiB of bits
    private readonly Dictionary<uint, ulong[]> _chunks = [];
    private long _count;
    private long _discarded;
    private long _refused;

    /// <summary>Pages in the balloon. Any thread.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <summary>Bytes given back to the host so far, counted again when a page comes again. Any thread.</summary>
    public long DiscardedBytes => Volatile.Read(ref _discarded);

    /// <summary>Pages that are not RAM, and discards that the kernel refused. Any thread.</summary>
    public long Refused => Volatile.Read(ref _refused);

    /// <summary>Puts pages in. The frame numbers are sorted in place.</summary>
    public void Inflate(Span<uint> frames)
    {
        frames.Sort();
        int at = 0;
        while (at < frames.Length)
        {
            uint first = frames[at], last = first;
            for (at++; at < frames.Length && frames[at] - last <= 1; at++)
            {
                last = frames[at];
            }

            Inflate(first, last);
        }
    }

    /// <summary>Takes pages out; their memory comes back when the guest touches them.</summary>
    public void Deflate(ReadOnlySpan<uint> frames)
    {
        foreach (uint frame in frames)
        {
            if (_chunks.TryGetValue(frame / PagesPerChunk, out ulong[]? chunk))
            {
                ref ulong word = ref chunk[frame % PagesPerChunk / 64];
                ulong bit = 1UL << (int)(frame % 64);
                _count -= (word & bit) != 0 ? 1 : 0;
                word &= ~bit;
            }
        }
    }

    /// <summary>Gives back a range that the guest says is free (free page reporting); it is no part of the balloon.</summary>
    public void Report(GuestAddress at, ulong length) => Discard(at, length);

    /// <summary>An empty balloon: after a reset all pages are the driver's again (5.5.6).</summary>
    public void Clear()
    {
        _chunks.Clear();
        Volatile.Write(ref _count, 0);
    }

    private void Inflate(uint first, uint last)
    {
        GuestAddress start = new(first * PageBytes);
        ulong end = (last + 1UL) * PageBytes;
        foreach (ref readonly GuestRegion region in memory.RegionSpan)
        {
            ulong from = Math.Max(start.Value, region.Start.Value), to = Math.Min(end, region.Start.Value + region.Length);
            if (from >= to)
            {
                continue;
            }

            first = (uint)(from / PageBytes);
            last = (uint)((to - 1) / PageBytes);
            for (uint frame = first; frame <= last; frame++)
            {
                Mark(frame);
            }

            Discard(new(from), to - from);
        }
    }

    private void Mark(uint frame)
    {
        if (!_chunks.TryGetValue(frame / PagesPerChunk, out ulong[]? chunk))
        {
            chunk = new ulong[PagesPerChunk / 64]; // bounded: only frames inside RAM get here
            _chunks.Add(frame / PagesPerChunk, chunk);
        }

        ref ulong word = ref chunk[frame % PagesPerChunk / 64];
        ulong bit = 1UL << (int)(frame % 64);
        _count += (word & bit) == 0 ? 1 : 0;
        word |= bit;
    }

    private void Discard(GuestAddress at, ulong length)
    {
        int errno = memory.Discard(at, length, out ulong discarded);
        _discarded += (long)discarded;
        _refused += errno == 0 ? 0 : 1;
    }
}
