using System.Numerics;

namespace Vmm.Memory.Paging;

/// <summary>
/// Reads pages wherever they are, and leaves them there: who copies all memory (a save) does not push the guest's pages out with those that
/// it looks at once. It claims them as everybody does who works on a page. For a machine at rest. Any thread, each with its own
/// <see cref="MoverRoom"/>.
/// </summary>
internal sealed class PageReader(
    ResidencyCache pages, IPageMapper mapper, ISwapStore store, SlotTable slots, PageRestorer restorer)
{
    private const int GroupPages = ResidencyCache.GroupPages, PageBytes = ISwapStore.PageBytes;

    /// <summary>Copies pages out.</summary>
    /// <param name="first">The first.</param>
    /// <param name="content">Where to: whole pages.</param>
    /// <param name="room">Buffers.</param>
    /// <exception cref="SwapStoreException">The store cannot give one back.</exception>
    /// <exception cref="SavedPagesException">The file that it is restored from cannot.</exception>
    internal void Read(ulong first, Span<byte> content, MoverRoom room)
    {
        while (!content.IsEmpty)
        {
            int count = (int)Math.Min(GroupPages - (first % GroupPages), (ulong)(content.Length / PageBytes));
            ReadSome(first, count, content, room);
            content = content[(count * PageBytes)..];
            first += (ulong)count;
        }
    }

    private void ReadSome(ulong first, int count, Span<byte> content, MoverRoom room)
    {
        uint inMemory = 0, staged = 0, used = 0, kept = 0, outside = 0, saved = 0;
        for (int i = 0; i < count; i++)
        {
            uint bit = 1u << i;
            PageState was = Claim(first + (ulong)i, out bool wasUsed, out bool wasKept);
            inMemory |= was is PageState.Resident or PageState.Staged ? bit : 0;
            staged |= was == PageState.Staged ? bit : 0;
            used |= wasUsed ? bit : 0;
            kept |= wasKept ? bit : 0;
            outside |= was == PageState.Out ? bit : 0;
            saved |= was == PageState.Saved ? bit : 0;
        }

        try
        {
            content[..(count * PageBytes)].Clear();
            for (uint mask = inMemory; ResidencyCache.TryNextRun(ref mask, out int at, out int run);)
            {
                mapper.Peek(first + (ulong)at, run, content[(at * PageBytes)..]);
            }

            for (uint mask = outside; mask != 0;)
            {
                mask &= ~ReadCluster(first, mask, content, room);
            }

            for (uint mask = saved; ResidencyCache.TryNextRun(ref mask, out int at, out int run);)
            {
                restorer.Look(first + (ulong)at, room)[..(run * PageBytes)].CopyTo(content[(at * PageBytes)..]);
            }
        }
        finally
        {
            Settle(first, inMemory & ~staged, PageState.Resident, used, kept);
            Settle(first, staged, PageState.Staged, 0, kept);
            Settle(first, outside, PageState.Out, 0, 0);
            Settle(first, saved, PageState.Saved, 0, 0);
        }
    }

    // What was written together is read together. Which of the wanted pages that were.
    private uint ReadCluster(ulong first, uint wanted, Span<byte> content, MoverRoom room)
    {
        uint done = 0;
        int read = store.Read(slots[first + (ulong)BitOperations.TrailingZeroCount(wanted)], room.Content, room.Slots);
        for (int i = 0; i < read; i++)
        {
            for (uint mask = wanted & ~done; mask != 0; mask &= mask - 1)
            {
                int at = BitOperations.TrailingZeroCount(mask);
                if (slots[first + (ulong)at] == room.Slots[i])
                {
                    room.Content.Slice(i * PageBytes, PageBytes).CopyTo(content[(at * PageBytes)..]);
                    done |= 1u << at;
                    break;
                }
            }
        }

        return done;
    }

    private PageState Claim(ulong page, out bool used, out bool kept)
    {
        kept = false;
        SpinWait wait = default;
        while (true)
        {
            PageState now = pages.StateOf(page);
            used = now == PageState.Resident && pages.TakeUsed(page);
            if (now == PageState.Empty || (now != PageState.Moving && pages.TryMove(page, now, PageState.Moving, out kept)))
            {
                return now;
            }

            wait.SpinOnce();
        }
    }

    private void Settle(ulong first, uint mask, PageState state, uint used, uint kept)
    {
        for (uint left = mask; left != 0; left &= left - 1)
        {
            int at = BitOperations.TrailingZeroCount(left);
            pages.Settle(first + (ulong)at, state, (used & (1u << at)) != 0, (kept & (1u << at)) != 0);
        }

        for (uint left = mask; ResidencyCache.TryNextRun(ref left, out int at, out int count);)
        {
            mapper.Wake(first + (ulong)at, count);
        }
    }
}
