using System.Numerics;

namespace Vmm.Memory.Paging;

/// <summary>
/// The ways of a page that is in a saved file only: to the guest, to the swap store, or to nothing. They go over
/// <see cref="PageState.Moving"/>, as those of the <see cref="PageMover"/>; what is given was checked as a whole chunk before. A page never
/// comes back here. Any number of threads, each with its own <see cref="MoverRoom"/>.
/// </summary>
internal sealed class PageRestorer(ResidencyCache pages, IPageMapper mapper, ISwapStore store, SlotTable slots)
{
    /// <summary>Pages of a chunk.</summary>
    internal const int ChunkPages = ISavedPages.ChunkBytes / PageBytes;

    private const int GroupPages = ResidencyCache.GroupPages, PageBytes = ISwapStore.PageBytes;
    private readonly List<ulong> _chunks = []; // first pages of those with a content, ascending
    private readonly ISavedPages?[] _sources = new ISavedPages?[pages.Board.Spans.Length];
    private long _left, _total, _awaited, _near = -1;
    private int _readers; // who may read a file without a page of it in its hands

    /// <summary>Pages that are in a file only.</summary>
    internal long Left => Volatile.Read(ref _left);

    /// <summary>Pages that were, when it began.</summary>
    internal long Total => Volatile.Read(ref _total);

    /// <summary>Pages that somebody waited for.</summary>
    internal long Awaited => Volatile.Read(ref _awaited);

    /// <summary>From now on the pages of a mapping are those of a file. Before anybody touches them.</summary>
    /// <param name="span">The mapping; those before it have theirs.</param>
    /// <param name="source">The file.</param>
    internal void Add(int span, ISavedPages source)
    {
        _sources[span] = source;
        ulong first = pages.Board.Spans[span].First, end = first + pages.Board.Spans[span].Pages;
        for (ulong chunk = 0; first < end; chunk++, first += ChunkPages)
        {
            if (source.HasContent(chunk))
            {
                ulong count = Math.Min(ChunkPages, end - first);
                for (ulong page = first; page < first + count; page++)
                {
                    pages.Settle(page, PageState.Saved);
                }

                _chunks.Add(first);
                _left += (long)count;
            }
        }

        Volatile.Write(ref _total, _left);
    }

    /// <summary>
    /// Brings the chunk of a page that somebody waits for: first what is beside it, then what there is room for. The page is resident or
    /// empty afterwards, unless another thread has it.
    /// </summary>
    /// <exception cref="SavedPagesException">The file cannot give it.</exception>
    internal void Bring(ulong page, MoverRoom room, Func<int> freePages)
    {
        Interlocked.Increment(ref _readers);
        try
        {
            if (Left == 0)
            {
                return; // it came meanwhile, and the files may be closed
            }

            ulong chunk = ChunkOf(page, out int span, out ulong count), own = (page - chunk) / GroupPages;
            Volatile.Write(ref _near, (long)chunk);
            ReadOnlySpan<byte> content = Read(chunk, span, count, room);
            Interlocked.Increment(ref _awaited);
            ulong groups = (count + GroupPages - 1) / GroupPages;
            for (ulong i = 0; i < groups && (i == 0 || freePages() >= 2 * GroupPages); i++)
            {
                Place(chunk, (own + i) % groups, content);
            }
        }
        finally
        {
            Interlocked.Decrement(ref _readers);
        }
    }

    /// <summary>Brings what is left of a chunk into memory.</summary>
    /// <exception cref="SavedPagesException">The file cannot give it.</exception>
    internal void Prefetch(ulong chunk, MoverRoom room)
    {
        ChunkOf(chunk, out int span, out ulong count);
        ReadOnlySpan<byte> content = Read(chunk, span, count, room);
        for (ulong group = 0; group * GroupPages < count; group++)
        {
            Place(chunk, group, content);
        }
    }

    /// <summary>Takes what is left of a chunk to the swap store: there is no room in memory.</summary>
    /// <exception cref="SavedPagesException">The file cannot give it.</exception>
    /// <exception cref="SwapStoreException">The store did not take it: it stays where it is.</exception>
    internal void MoveOut(ulong chunk, MoverRoom room)
    {
        ChunkOf(chunk, out int span, out ulong count);
        ReadOnlySpan<byte> content = Read(chunk, span, count, room);
        for (ulong group = 0; group * GroupPages < count; group++)
        {
            Store(chunk, group, content, room);
        }
    }

    /// <summary>Content of pages that are in a file, for a look that leaves them there. It holds until the room is used again.</summary>
    /// <exception cref="SavedPagesException">The file cannot give it.</exception>
    internal ReadOnlySpan<byte> Look(ulong page, MoverRoom room)
    {
        ulong chunk = ChunkOf(page, out int span, out ulong count);
        return Read(chunk, span, count, room)[((int)(page - chunk) * PageBytes)..];
    }

    /// <summary>Closes the files: when nothing is left in them, or nobody works here any more.</summary>
    internal void LetGo()
    {
        for (SpinWait wait = default; Volatile.Read(ref _readers) > 0;)
        {
            wait.SpinOnce(); // one that comes from now on sees that nothing is left
        }

        foreach (ISavedPages? source in _sources)
        {
            source?.Dispose();
        }
    }

    /// <summary>Pages went whose content nobody wants.</summary>
    internal void NoteGone(int count) => Interlocked.Add(ref _left, -count);

    /// <summary>The chunk that is to come next: the one behind what was touched last, else the next one.</summary>
    /// <param name="at">Where the caller is, in the list of chunks; 0 at first.</param>
    /// <param name="chunk">First page of the chunk.</param>
    /// <returns>False: all are there, or on their way.</returns>
    internal bool TryNext(ref int at, out ulong chunk)
    {
        long near = Interlocked.Exchange(ref _near, -1);
        if (near >= 0 && _chunks.BinarySearch((ulong)near) is >= 0 and var found)
        {
            at = found + 1;
        }

        for (int i = 0; i < _chunks.Count; i++, at++)
        {
            at %= _chunks.Count;
            chunk = _chunks[at];
            ChunkOf(chunk, out _, out ulong count);
            if (pages.IsAny(chunk, count, PageState.Saved))
            {
                return true;
            }
        }

        chunk = 0;
        return false;
    }

    private ulong ChunkOf(ulong page, out int span, out ulong count)
    {
        span = pages.SpanOf(page, out ulong inside);
        ulong first = inside & ~(ulong)(ChunkPages - 1);
        count = Math.Min(ChunkPages, pages.Board.Spans[span].Pages - first);
        return page - inside + first;
    }

    private ReadOnlySpan<byte> Read(ulong chunk, int span, ulong count, MoverRoom room)
    {
        Span<byte> content = room.ChunkContent[..((int)count * PageBytes)];
        if (room.Chunk != chunk)
        {
            room.Chunk = null;
            _sources[span]!.Read((chunk - pages.Board.Spans[span].First) / ChunkPages, content);
            room.Chunk = chunk;
        }

        return content;
    }

    private void Place(ulong chunk, ulong group, ReadOnlySpan<byte> content)
    {
        ulong first = chunk + (group * GroupPages);
        ReadOnlySpan<byte> own = content[((int)(first - chunk) * PageBytes)..];
        uint claimed = Claim(first, own.Length / PageBytes), full = Full(claimed, own);
        try
        {
            for (uint mask = full; ResidencyCache.TryNextRun(ref mask, out int at, out int count);)
            {
                mapper.Fill(first + (ulong)at, own.Slice(at * PageBytes, count * PageBytes), kept: false);
            }
        }
        catch
        {
            Settle(first, claimed, PageState.Saved); // the pager ends the VM
            throw;
        }

        Interlocked.Add(ref pages.Board.Resident, BitOperations.PopCount(full));
        Settle(first, full, PageState.Resident);
        Settle(first, claimed & ~full, PageState.Empty);
        Interlocked.Add(ref _left, -BitOperations.PopCount(claimed));
    }

    private void Store(ulong chunk, ulong group, ReadOnlySpan<byte> content, MoverRoom room)
    {
        ulong first = chunk + (group * GroupPages);
        ReadOnlySpan<byte> own = content[((int)(first - chunk) * PageBytes)..];
        uint claimed = Claim(first, own.Length / PageBytes), full = Full(claimed, own);
        int packed = 0;
        for (uint mask = full; mask != 0; mask &= mask - 1)
        {
            own.Slice(BitOperations.TrailingZeroCount(mask) * PageBytes, PageBytes).CopyTo(room.Packed[(packed++ * PageBytes)..]);
        }

        try
        {
            if (packed > 0)
            {
                store.Write(room.Packed[..(packed * PageBytes)], room.Slots[..packed]);
            }
        }
        catch
        {
            Settle(first, claimed, PageState.Saved);
            throw;
        }

        int slot = 0;
        for (uint mask = full; mask != 0; mask &= mask - 1)
        {
            slots[first + (ulong)BitOperations.TrailingZeroCount(mask)] = room.Slots[slot++];
        }

        Settle(first, full, PageState.Out);
        Settle(first, claimed & ~full, PageState.Empty);
        Interlocked.Add(ref _left, -BitOperations.PopCount(claimed));
    }

    private uint Claim(ulong first, int most)
    {
        uint claimed = 0;
        for (int i = 0; i < Math.Min(GroupPages, most); i++)
        {
            claimed |= pages.TryMove(first + (ulong)i, PageState.Saved, PageState.Moving) ? 1u << i : 0;
        }

        return claimed;
    }

    private static uint Full(uint claimed, ReadOnlySpan<byte> content)
    {
        uint full = 0;
        for (uint mask = claimed; mask != 0; mask &= mask - 1)
        {
            int at = BitOperations.TrailingZeroCount(mask);
            full |= content.Slice(at * PageBytes, PageBytes).ContainsAnyExcept((byte)0) ? 1u << at : 0;
        }

        return full;
    }

    private void Settle(ulong first, uint mask, PageState state)
    {
        for (uint left = mask; left != 0; left &= left - 1)
        {
            pages.Settle(first + (ulong)BitOperations.TrailingZeroCount(left), state);
        }

        for (uint left = mask; ResidencyCache.TryNextRun(ref left, out int at, out int count);)
        {
            mapper.Wake(first + (ulong)at, count);
        }
    }
}
