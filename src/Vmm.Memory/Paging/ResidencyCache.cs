using System.Numerics;
using System.Runtime.CompilerServices;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// Where each page of guest memory is, and which pages transfers use: a byte a page, and a count a group of 16. Any thread, no locks.
/// A transfer raises the count first and looks at the states then; who takes a page away changes its state first, makes the counts of all
/// threads visible (<see cref="PinTable.Fence"/>), and looks at them then. So at least one of the two sees the other.
/// </summary>
internal sealed unsafe class ResidencyCache : IDisposable
{
    /// <summary>Pages of a group.</summary>
    internal const int GroupPages = 16;

    /// <summary>Set beside <see cref="PageState.Resident"/>: used since the evicter last looked.</summary>
    internal const byte UsedBit = 8;

    /// <summary>
    /// Set beside <see cref="PageState.Resident"/> and <see cref="PageState.Staged"/>: its slot in the swap store holds its content, as
    /// long as nobody wrote it since it was mapped write-protected.
    /// </summary>
    internal const byte KeptBit = 16;

    private const int PageShift = 12, GroupShift = 4;
    private const byte StateBits = 7;
    private const ulong Each = 0x0101_0101_0101_0101; // a byte in each of eight
    private readonly byte* _states;
    private readonly PinTable _pins;
    private readonly PagerSpan[] _spans;

    /// <param name="mappings">Where the memory is mapped, and how many pages each mapping has.</param>
    /// <exception cref="KernelException">Out of memory.</exception>
    internal ResidencyCache(IReadOnlyList<(nint Address, ulong Pages)> mappings)
    {
        _spans = new PagerSpan[mappings.Count];
        ulong next = 0;
        for (int i = 0; i < _spans.Length; i++)
        {
            _spans[i] = new PagerSpan((ulong)mappings[i].Address, mappings[i].Pages, next);
            next = (next + mappings[i].Pages + GroupPages - 1) & ~(ulong)(GroupPages - 1);
        }

        Groups = next >> GroupShift;
        Board = new PagerBoard(_spans, next);
        _states = (byte*)Board.States;
        _pins = new PinTable(Groups);
    }

    /// <summary>Called between any two looks at the table: a test makes its threads take turns there. Null otherwise.</summary>
    internal Action? Turn { get; set; }

    /// <summary>States and counts as the responder sees them.</summary>
    internal PagerBoard Board { get; }

    /// <summary>How many groups there are.</summary>
    internal ulong Groups { get; }

    /// <summary>The pins of each thread.</summary>
    internal PinTable Lanes => _pins;

    /// <summary>The group of a page.</summary>
    internal static ulong GroupOf(ulong page) => page >> GroupShift;

    /// <summary>The number of the page at an address of this process; false when it is none of these.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryFind(nint address, out ulong page)
    {
        foreach (ref readonly PagerSpan span in _spans.AsSpan())
        {
            ulong inside = ((ulong)address - span.Address) >> PageShift;
            if (inside < span.Pages)
            {
                page = span.First + inside;
                return true;
            }
        }

        page = 0;
        return false;
    }

    /// <summary>Which mapping a page is of, and the number of the page there.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such page.</exception>
    internal int SpanOf(ulong page, out ulong inside)
    {
        for (int i = 0; i < _spans.Length; i++)
        {
            inside = page - _spans[i].First;
            if (inside < _spans[i].Pages)
            {
                return i;
            }
        }

        throw new ArgumentOutOfRangeException(nameof(page), page, "No such page.");
    }

    /// <summary>True for numbers of pages; the last group of a mapping may be longer than the mapping.</summary>
    internal bool IsPage(ulong page)
    {
        foreach (ref readonly PagerSpan span in _spans.AsSpan())
        {
            if (page - span.First < span.Pages)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Where a page is now.</summary>
    internal PageState StateOf(ulong page)
    {
        Turn?.Invoke();
        return (PageState)(Volatile.Read(ref _states[page]) & StateBits);
    }

    /// <summary>Moves a page from one state to another; false when it is not in the first.</summary>
    internal bool TryMove(ulong page, PageState from, PageState to) => TryMove(page, from, to, out _);

    /// <summary>The same; says whether its slot was kept, which the page does not know any more then.</summary>
    internal bool TryMove(ulong page, PageState from, PageState to, out bool kept)
    {
        Turn?.Invoke();
        byte next = (byte)to;
        kept = false;
        while (true)
        {
            byte now = Volatile.Read(ref _states[page]);
            if ((now & StateBits) != (byte)from)
            {
                return false;
            }

            if (Interlocked.CompareExchange(ref _states[page], next, now) == now)
            {
                kept = (now & KeptBit) != 0;
                return true;
            }
        }
    }

    /// <summary>True when a page of the group has a kept slot.</summary>
    internal bool AnyKept(ulong first)
    {
        bool any = false;
        for (ulong page = first; page < first + GroupPages; page++)
        {
            any |= (Volatile.Read(ref _states[page]) & KeptBit) != 0;
        }

        return any;
    }

    /// <summary>Ends a move: only for who moved the page to <see cref="PageState.Moving"/>.</summary>
    internal void Settle(ulong page, PageState state, bool used = false, bool kept = false)
    {
        Turn?.Invoke();
        Volatile.Write(ref _states[page], (byte)((byte)state | (used ? UsedBit : 0) | (kept ? KeptBit : 0)));
    }

    /// <summary>Takes the mark of use from a resident page; false when it has none.</summary>
    internal bool TakeUsed(ulong page)
    {
        byte now = Volatile.Read(ref _states[page]);
        return (now & ~KeptBit) == ((byte)PageState.Resident | UsedBit)
            && Interlocked.CompareExchange(ref _states[page], (byte)(now & ~UsedBit), now) == now;
    }

    /// <summary>Transfers that use pages of a group. Of use to who claimed its pages after <see cref="Fence"/> only.</summary>
    internal uint Pins(ulong group)
    {
        Turn?.Invoke();
        return _pins.Pins(group, Turn);
    }

    /// <summary>Between the claim of pages and <see cref="Pins"/>.</summary>
    internal void Fence() => _pins.Fence();

    /// <summary>
    /// No page of these is taken away from the return on, until <see cref="Unpin"/>; one may be away, or on its way. On the thread of the
    /// lane.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Pin(PinLane lane, ulong page, ulong count)
    {
        for (ulong group = GroupOf(page), last = GroupOf(page + count - 1); group <= last; group++)
        {
            lane.Pin(group);
        }

        Turn?.Invoke();
    }

    /// <summary>Ends <see cref="Pin"/> of the same pages in the same lane.</summary>
    /// <param name="lane">The lane.</param>
    /// <param name="page">The first page.</param>
    /// <param name="count">How many.</param>
    /// <param name="isOwn">The calling thread is that of the lane.</param>
#pragma warning disable CA1822 // Its pages are these.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Unpin(PinLane lane, ulong page, ulong count, bool isOwn)
#pragma warning restore CA1822
    {
        for (ulong group = GroupOf(page), last = GroupOf(page + count - 1); group <= last; group++)
        {
            lane.Unpin(group, isOwn);
        }
    }

    /// <summary>True when all pages are resident; they count as used then.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool AreResident(ulong page, ulong count)
    {
        Turn?.Invoke();
        // Most often it is one page, which was used.
        return (count == 1 && (Volatile.Read(ref _states[page]) & ~KeptBit) == ((byte)PageState.Resident | UsedBit))
            || LookForEach(page, count);
    }

    private bool LookForEach(ulong page, ulong count)
    {
        const byte Used = (byte)PageState.Resident | UsedBit;
        for (ulong end = page + count; page < end; page++)
        {
            // Most often all are there and were used: eight at a look.
            while (page % sizeof(ulong) == 0 && end - page >= sizeof(ulong)
                && (Volatile.Read(ref *(ulong*)(_states + page)) & ~(Each * KeptBit)) == Each * Used)
            {
                page += sizeof(ulong);
            }

            byte now = page < end ? Volatile.Read(ref _states[page]) : Used;
            if ((now & ~KeptBit) != Used && !TryUse(page, now))
            {
                return false;
            }
        }

        return true;
    }

    private bool TryUse(ulong page, byte now)
    {
        while ((now & StateBits) == (byte)PageState.Resident)
        {
            byte before = Interlocked.CompareExchange(ref _states[page], (byte)(now | UsedBit), now);
            if (before == now)
            {
                return true;
            }

            now = before;
        }

        return false;
    }

    /// <summary>True when one of these pages is in a state now.</summary>
    internal bool IsAny(ulong page, ulong count, PageState state)
    {
        for (ulong end = page + count; page < end; page++)
        {
            if (StateOf(page) == state)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>The first page from there on that has, or has not, a content; false when there is none before the end.</summary>
    internal bool TryFindContent(ulong page, ulong end, bool hasContent, out ulong found)
    {
        for (found = page; found < end; found++)
        {
            if ((StateOf(found) != PageState.Empty) == hasContent)
            {
                return true;
            }
        }

        return false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _pins.Dispose();
        Board.Dispose();
    }

    /// <summary>Goes through the runs of a mask: how many follow each other from where.</summary>
    internal static bool TryNextRun(ref uint mask, out int first, out int count)
    {
        if (mask == 0)
        {
            first = count = 0;
            return false;
        }

        first = BitOperations.TrailingZeroCount(mask);
        count = BitOperations.TrailingZeroCount(~(mask >> first));
        mask &= ~(((1u << count) - 1) << first);
        return true;
    }
}
