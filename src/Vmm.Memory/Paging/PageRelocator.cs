namespace Vmm.Memory.Paging;

/// <summary>
/// Moves pages between the host's NUMA nodes: those that are in memory and that no transfer uses. It claims them as everybody does who
/// works on a page. The kernel moves only what is mapped, so that a staged page becomes resident first. Any thread; nothing is allocated.
/// </summary>
internal sealed class PageRelocator(ResidencyCache pages, IPageMapper mapper)
{
    private const int MostAtOnce = 64; // so long a transfer waits that wants one of them

    /// <summary>Maps the staged pages of a range: who asks the kernel where they are gets an answer.</summary>
    internal void Unstage(ulong first, ulong count)
    {
        for (ulong page = first; page < first + count; page++)
        {
            if (pages.TryMove(page, PageState.Staged, PageState.Moving, out bool kept))
            {
                Interlocked.Decrement(ref pages.Board.Staged);
                mapper.Map(page, kept);
                pages.Settle(page, PageState.Resident, used: false, kept);
                mapper.Wake(page, 1);
            }
        }
    }

    /// <summary>Moves pages of one memory. One that is used, on its way, or not in memory stays as it is.</summary>
    /// <param name="wanted">Numbers of pages, ascending.</param>
    /// <param name="hostNode">Where to.</param>
    /// <returns>0, or the errno with which the kernel gave up.</returns>
    internal int Move(ReadOnlySpan<ulong> wanted, int hostNode)
    {
        Span<ulong> claimed = stackalloc ulong[MostAtOnce];
        int errno = 0;
        for (int at = 0; at < wanted.Length && errno == 0; at += MostAtOnce)
        {
            ReadOnlySpan<ulong> some = wanted.Slice(at, Math.Min(MostAtOnce, wanted.Length - at));
            Unstage(some);
            ulong used = 0, kept = 0;
            int count = Claim(some, claimed, ref used, ref kept);
            if (count == 0)
            {
                continue;
            }

            try
            {
                errno = mapper.MoveTo(claimed[..count], hostNode);
            }
            finally
            {
                for (int i = 0; i < count; i++)
                {
                    Settle(claimed[i], (used & (1UL << i)) != 0, (kept & (1UL << i)) != 0);
                }
            }
        }

        return errno;
    }

    private void Unstage(ReadOnlySpan<ulong> some)
    {
        foreach (ulong page in some)
        {
            Unstage(page, 1);
        }
    }

    private int Claim(ReadOnlySpan<ulong> some, Span<ulong> claimed, ref ulong used, ref ulong kept)
    {
        int count = 0, left = 0;
        ulong usedMarks = 0, keptMarks = 0;
        foreach (ulong page in some)
        {
            bool wasUsed = pages.TakeUsed(page);
            if (pages.TryMove(page, PageState.Resident, PageState.Moving, out bool wasKept))
            {
                usedMarks |= wasUsed ? 1UL << count : 0;
                keptMarks |= wasKept ? 1UL << count : 0;
                claimed[count++] = page;
            }
        }

        if (count > 0)
        {
            pages.Fence();
        }

        for (int i = 0; i < count; i++)
        {
            bool wasUsed = (usedMarks & (1UL << i)) != 0, wasKept = (keptMarks & (1UL << i)) != 0;
            if (pages.Pins(ResidencyCache.GroupOf(claimed[i])) != 0)
            {
                Settle(claimed[i], wasUsed, wasKept); // a device may be at it: the kernel would not move it either
            }
            else
            {
                used |= wasUsed ? 1UL << left : 0;
                kept |= wasKept ? 1UL << left : 0;
                claimed[left++] = claimed[i];
            }
        }

        return left;
    }

    private void Settle(ulong page, bool used, bool kept)
    {
        pages.Settle(page, PageState.Resident, used, kept);
        mapper.Wake(page, 1);
    }
}
