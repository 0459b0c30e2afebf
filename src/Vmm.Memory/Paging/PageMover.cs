using System.Numerics;

namespace Vmm.Memory.Paging;

/// <summary>
/// The ways of a page between guest, staging, swap store and nothing. Every way goes over <see cref="PageState.Moving"/>: one thread works
/// on a page, and wakes who waits for it at the end. Any number of threads, each with its own <see cref="MoverRoom"/>; nothing is
/// allocated.
/// </summary>
internal sealed class PageMover(
    ResidencyCache pages, IPageMapper mapper, ISwapStore store, SlotTable slots, PageRestorer restorer)
{
    private const int GroupPages = ResidencyCache.GroupPages, PageBytes = ISwapStore.PageBytes;
    private static readonly PageState[] s_inMemory = [PageState.Resident, PageState.Staged];
    private long _refused, _zeros, _in, _out, _unchanged, _kept;

    /// <summary>Groups that were not staged because a transfer uses them.</summary>
    internal long Refused => Volatile.Read(ref _refused);

    /// <summary>Pages that went out without a write: zeros.</summary>
    internal long Zeros => Volatile.Read(ref _zeros);

    /// <summary>Pages that went out without a write: they are in the store as they were when they came from it.</summary>
    internal long Unchanged => Volatile.Read(ref _unchanged);

    /// <summary>Pages in memory that are in the store, too.</summary>
    internal long Kept => Volatile.Read(ref _kept);

    /// <summary>Pages that came from the store.</summary>
    internal long PagesIn => Volatile.Read(ref _in);

    /// <summary>Pages that went to the store.</summary>
    internal long PagesOut => Volatile.Read(ref _out);

    /// <summary>Takes the resident pages of a group from the guest; they stay in memory.</summary>
    /// <param name="group">The group.</param>
    /// <param name="spareUsed">Not those that were used since this was last called for them.</param>
    /// <returns>How many pages.</returns>
    internal int Stage(ulong group, bool spareUsed)
    {
        if (pages.Pins(group) != 0)
        {
            Interlocked.Increment(ref _refused);
            return 0;
        }

        ulong first = group * GroupPages;
        uint claimed = Claim(first, PageState.Resident, spareUsed, out uint kept);
        if (claimed == 0)
        {
            return 0;
        }

        // A transfer that came before the claim is seen here; one that comes after it sees the claim.
        pages.Fence();
        bool isPinned = pages.Pins(group) != 0;
        if (!isPinned)
        {
            for (uint mask = claimed; ResidencyCache.TryNextRun(ref mask, out int at, out int count);)
            {
                mapper.Unmap(first + (ulong)at, count);
            }

            kept &= ~ForgetWritten(first, kept);

            // Before the states: whoever finds one staged takes it off this count.
            Interlocked.Add(ref pages.Board.Staged, BitOperations.PopCount(claimed));
        }
        else
        {
            Interlocked.Increment(ref _refused);
        }

        Settle(first, claimed, isPinned ? PageState.Resident : PageState.Staged, kept);
        return isPinned ? 0 : BitOperations.PopCount(claimed);
    }

    /// <summary>Takes the staged pages of a group out of memory.</summary>
    /// <returns>How many pages.</returns>
    /// <exception cref="SwapStoreException">The store did not take them: they are staged as before.</exception>
    internal int WriteOut(ulong group, MoverRoom room)
    {
        ulong first = group * GroupPages;
        uint claimed = Claim(first, PageState.Staged, spareUsed: false, out uint unchanged);
        if (claimed == 0)
        {
            return 0;
        }

        uint written = 0;
        int kept = 0;
        try
        {
            for (uint mask = claimed & ~unchanged; ResidencyCache.TryNextRun(ref mask, out int at, out int count);)
            {
                mapper.Read(first + (ulong)at, count, room.Content);
                for (int i = 0; i < count; i++)
                {
                    ReadOnlySpan<byte> page = room.Content.Slice(i * PageBytes, PageBytes);
                    if (page.ContainsAnyExcept((byte)0))
                    {
                        page.CopyTo(room.Packed[(kept++ * PageBytes)..]);
                        written |= 1u << (at + i);
                    }
                }
            }

            if (kept > 0)
            {
                store.Write(room.Packed[..(kept * PageBytes)], room.Slots[..kept]);
            }
        }
        catch
        {
            Settle(first, claimed & ~unchanged, PageState.Staged);
            TakeOut(first, unchanged, 0, unchanged, room);
            throw;
        }

        TakeOut(first, claimed, written, unchanged, room);
        return BitOperations.PopCount(claimed);
    }

    /// <summary>Frees the slots of pages of a group that are in memory, too: the store has no room for what has to go.</summary>
    /// <returns>How many.</returns>
    internal int DropKept(ulong group)
    {
        ulong first = group * GroupPages;
        int dropped = 0;
        foreach (PageState state in pages.AnyKept(first) ? s_inMemory : [])
        {
            uint claimed = Claim(first, state, spareUsed: false, out uint kept);
            Forget(first, kept);
            Settle(first, claimed, state);
            dropped += BitOperations.PopCount(kept);
        }

        return dropped;
    }

    /// <summary>Brings a page in, whatever it is now, and counts it as used. Waits for a thread that works on it.</summary>
    /// <exception cref="SwapStoreException">The store cannot give it back.</exception>
    internal void Fetch(ulong page, MoverRoom room, Func<int> freePages)
    {
        SpinWait wait = default;
        while (true)
        {
            switch (pages.StateOf(page))
            {
                case PageState.Resident:
                    mapper.Wake(page, 1); // mapped, or the responder maps it when it is touched again
                    return;
                case PageState.Staged when pages.TryMove(page, PageState.Staged, PageState.Moving, out bool kept):
                    Interlocked.Decrement(ref pages.Board.Staged);
                    mapper.Map(page, kept);
                    pages.Settle(page, PageState.Resident, used: true, kept);
                    mapper.Wake(page, 1);
                    return;
                case PageState.Empty when pages.TryMove(page, PageState.Empty, PageState.Moving):
                    mapper.Zero(page);
                    Interlocked.Increment(ref pages.Board.Resident);
                    pages.Settle(page, PageState.Resident, used: true);
                    mapper.Wake(page, 1);
                    return;
                case PageState.Out when pages.TryMove(page, PageState.Out, PageState.Moving):
                    ReadIn(page, room, freePages);
                    return;
                case PageState.Saved:
                    restorer.Bring(page, room, freePages);
                    break;
                default:
                    wait.SpinOnce();
                    break;
            }
        }
    }

    /// <summary>
    /// Empties pages of one group: nobody wants their content any more. A page that a transfer uses is left as it is.
    /// </summary>
    /// <returns>The pages that are empty now, one bit each.</returns>
    internal uint Discard(ulong first, int count)
    {
        ulong group = ResidencyCache.GroupOf(first);
        uint claimed = 0, inMemory = 0, staged = 0, empty = 0, kept = 0, saved = 0;
        for (int i = 0; i < count; i++)
        {
            SpinWait wait = default;
            for (bool over = false; !over;)
            {
                PageState now = pages.StateOf(first + (ulong)i);
                bool wasKept = false;
                over = now == PageState.Empty
                    || (now != PageState.Moving && pages.TryMove(first + (ulong)i, now, PageState.Moving, out wasKept));
                if (!over)
                {
                    wait.SpinOnce();
                    continue;
                }

                uint bit = 1u << i;
                kept |= wasKept ? bit : 0;
                empty |= now == PageState.Empty ? bit : 0;
                claimed |= now == PageState.Empty ? 0 : bit;
                inMemory |= now is PageState.Resident or PageState.Staged ? bit : 0;
                staged |= now == PageState.Staged ? bit : 0;
                saved |= now == PageState.Saved ? bit : 0;
            }
        }

        if (claimed != 0)
        {
            pages.Fence();
        }

        if (inMemory != 0 && pages.Pins(group) != 0)
        {
            // Those in the store cannot be in use; the others may be.
            Settle(first, inMemory & ~staged, PageState.Resident, kept);
            Settle(first, staged, PageState.Staged, kept);
            claimed &= ~inMemory;
            inMemory = staged = kept = 0;
        }

        Interlocked.Add(ref pages.Board.Staged, -BitOperations.PopCount(staged));
        Interlocked.Add(ref _kept, -BitOperations.PopCount(kept));
        restorer.NoteGone(BitOperations.PopCount(saved));
        return empty | Empty(first, claimed, inMemory, (claimed & ~inMemory & ~saved) | kept);
    }

    private uint Empty(ulong first, uint claimed, uint inMemory, uint inStore)
    {
        for (uint mask = inMemory; ResidencyCache.TryNextRun(ref mask, out int at, out int count);)
        {
            mapper.Drop(first + (ulong)at, count);
            Interlocked.Add(ref pages.Board.Resident, -count);
        }

        for (uint mask = inStore; mask != 0; mask &= mask - 1)
        {
            ulong page = first + (ulong)BitOperations.TrailingZeroCount(mask);
            store.Free(slots[page]);
            slots[page] = default;
        }

        Settle(first, claimed, PageState.Empty);
        return claimed;
    }

    private void ReadIn(ulong page, MoverRoom room, Func<int> freePages)
    {
        int most = Math.Clamp(freePages(), 1, GroupPages), count;
        SwapSlot slot = slots[page];
        try
        {
            count = store.Read(slot, room.Content[..(most * PageBytes)], room.Slots[..most]);
        }
        catch
        {
            pages.Settle(page, PageState.Out); // nobody can have it; the pager ends the VM
            throw;
        }

        bool keep = KeepsSlots();
        Place(page, room.Content[..PageBytes], slot, used: true, keep);
        ulong first = page & ~(ulong)(GroupPages - 1);
        for (int i = 1; i < count; i++)
        {
            for (ulong other = first; other < first + GroupPages; other++)
            {
                if (slots[other] == room.Slots[i] && pages.TryMove(other, PageState.Out, PageState.Moving))
                {
                    if (slots[other] == room.Slots[i])
                    {
                        Place(other, room.Content.Slice(i * PageBytes, PageBytes), room.Slots[i], used: false, keep);
                    }
                    else
                    {
                        Settle(other, 1, PageState.Out);
                    }

                    break;
                }
            }
        }
    }

    private void Place(ulong page, ReadOnlySpan<byte> content, SwapSlot slot, bool used, bool keep)
    {
        mapper.Fill(page, content, keep);
        if (keep)
        {
            Interlocked.Increment(ref _kept);
        }
        else
        {
            slots[page] = default;
            store.Free(slot);
        }

        Interlocked.Increment(ref pages.Board.Resident);
        Interlocked.Increment(ref _in);
        pages.Settle(page, PageState.Resident, used, keep);
        mapper.Wake(page, 1);
    }

    // Slots that may be of use later are worth no page that has to go now.
    private bool KeepsSlots()
    {
        SwapStatistics now = store.Statistics;
        return mapper.Protects && now.FileBytes < now.LimitBytes / 4 * 3;
    }

    // What was written since it came from the store is there no more as it was. Nobody can write these pages now. Which of them it is.
    private uint ForgetWritten(ulong first, uint kept)
    {
        if (kept == 0)
        {
            return 0;
        }

        int from = BitOperations.TrailingZeroCount(kept), end = 32 - BitOperations.LeadingZeroCount(kept);
        uint written = (mapper.Written(first + (ulong)from, end - from) << from) & kept;
        Forget(first, written);
        return written;
    }

    private void Forget(ulong first, uint written)
    {
        for (uint mask = written; mask != 0; mask &= mask - 1)
        {
            ulong page = first + (ulong)BitOperations.TrailingZeroCount(mask);
            store.Free(slots[page]);
            slots[page] = default;
        }

        Interlocked.Add(ref _kept, -BitOperations.PopCount(written));
    }

    private void TakeOut(ulong first, uint claimed, uint written, uint unchanged, MoverRoom room)
    {
        int count = BitOperations.PopCount(claimed), kept = 0;
        for (uint mask = claimed; ResidencyCache.TryNextRun(ref mask, out int at, out int run);)
        {
            mapper.Drop(first + (ulong)at, run);
        }

        Interlocked.Add(ref pages.Board.Resident, -count);
        Interlocked.Add(ref pages.Board.Staged, -count);
        for (uint mask = written; mask != 0; mask &= mask - 1)
        {
            slots[first + (ulong)BitOperations.TrailingZeroCount(mask)] = room.Slots[kept++];
        }

        int same = BitOperations.PopCount(unchanged);
        Interlocked.Add(ref _out, kept);
        Interlocked.Add(ref _unchanged, same);
        Interlocked.Add(ref _kept, -same);
        Interlocked.Add(ref _zeros, count - kept - same);
        Settle(first, claimed & ~written & ~unchanged, PageState.Empty);
        Settle(first, written | unchanged, PageState.Out);
    }

    private uint Claim(ulong first, PageState from, bool spareUsed, out uint kept)
    {
        uint claimed = 0;
        kept = 0;
        for (int i = 0; i < GroupPages; i++)
        {
            ulong page = first + (ulong)i;
            if (pages.StateOf(page) == from && !(spareUsed && pages.TakeUsed(page))
                && pages.TryMove(page, from, PageState.Moving, out bool wasKept))
            {
                claimed |= 1u << i;
                kept |= wasKept ? 1u << i : 0;
            }
        }

        return claimed;
    }

    private void Settle(ulong first, uint mask, PageState state, uint kept = 0)
    {
        for (uint left = mask; left != 0; left &= left - 1)
        {
            int at = BitOperations.TrailingZeroCount(left);
            pages.Settle(first + (ulong)at, state, used: false, (kept & (1u << at)) != 0);
        }

        for (uint left = mask; ResidencyCache.TryNextRun(ref left, out int at, out int count);)
        {
            mapper.Wake(first + (ulong)at, count);
        }
    }
}
