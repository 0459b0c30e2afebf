using System.Numerics;

namespace Vmm.Memory;

/// <summary>
/// One bit for each 4 KiB page of guest RAM. Threads mark and collect at the same time without a lock. The bits lie in chunks of 128 MiB
/// that stay while the regions change: a mark made during memory hotplug is not lost.
/// </summary>
internal sealed class DirtyPages
{
    private const int PageShift = 12, ChunkShift = 15, WordShift = 6;
    private const int WordsPerChunk = 1 << (ChunkShift - WordShift);
    private Chunk[] _chunks = []; // ordered by number

    /// <summary>Makes room for the regions; what is covered already keeps its bits. One thread at a time.</summary>
    internal void Cover(ReadOnlySpan<GuestRegion> regions)
    {
        SortedDictionary<ulong, Chunk> chunks = [];
        foreach (Chunk chunk in _chunks)
        {
            chunks.Add(chunk.Number, chunk);
        }

        foreach (ref readonly GuestRegion region in regions)
        {
            ulong last = (region.Start.Value + (region.Length.Bytes - 1)) >> (PageShift + ChunkShift);
            for (ulong number = region.Start.Value >> (PageShift + ChunkShift); number <= last; number++)
            {
                chunks.TryAdd(number, new Chunk(number, new ulong[WordsPerChunk]));
            }
        }

        Volatile.Write(ref _chunks, [.. chunks.Values]);
    }

    /// <summary>Marks the pages that a range touches.</summary>
    internal void Mark(GuestAddress at, ulong length)
    {
        if (length == 0)
        {
            return;
        }

        // The data must be visible before a mark is found set: who clears that mark now reads the page afterwards.
        Interlocked.MemoryBarrier();
        ulong page = at.Value >> PageShift, last = (at.Value + (length - 1)) >> PageShift;
        for (ulong left = last - page + 1; left > 0;)
        {
            ulong mask = WordMask(page, left, out ulong taken);
            if (Find(page) is { } words)
            {
                ref ulong word = ref words[WordIndex(page)];
                // A page that is marked already is the common case: no locked access to its word then.
                if ((Volatile.Read(ref word) & mask) != mask)
                {
                    Interlocked.Or(ref word, mask);
                }
            }

            page += taken;
            left -= taken;
        }
    }

    /// <summary>Moves the marks of <paramref name="pages"/> pages from <paramref name="first"/> into the bitmap.</summary>
    internal void Collect(ulong first, ulong pages, Span<ulong> bitmap)
    {
        ulong page = first;
        for (ulong left = pages; left > 0;)
        {
            ulong mask = WordMask(page, left, out ulong taken);
            if (Find(page) is { } words)
            {
                ref ulong word = ref words[WordIndex(page)];
                ulong marked = (Volatile.Read(ref word) & mask) == 0 ? 0 : Interlocked.And(ref word, ~mask) & mask;
                for (; marked != 0; marked &= marked - 1)
                {
                    ulong bit = (page & ~63UL) + (ulong)BitOperations.TrailingZeroCount(marked) - first;
                    bitmap[(int)(bit >> WordShift)] |= 1UL << (int)(bit & 63);
                }
            }

            page += taken;
            left -= taken;
        }
    }

    private static int WordIndex(ulong page) => (int)(page >> WordShift) & (WordsPerChunk - 1);

    /// <summary>Bits of the word of <paramref name="page"/> that belong to <paramref name="pages"/> pages from there on.</summary>
    private static ulong WordMask(ulong page, ulong pages, out ulong taken)
    {
        int shift = (int)(page & 63);
        taken = Math.Min(64 - (ulong)shift, pages);
        return (taken == 64 ? ulong.MaxValue : (1UL << (int)taken) - 1) << shift;
    }

    private ulong[]? Find(ulong page)
    {
        Chunk[] chunks = Volatile.Read(ref _chunks);
        ulong number = page >> ChunkShift;
        int low = 0, high = chunks.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (chunks[middle].Number < number)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low < chunks.Length && chunks[low].Number == number ? chunks[low].Words : null;
    }

    private readonly record struct Chunk(ulong Number, ulong[] Words);
}
