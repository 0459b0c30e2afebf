using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>A swap store in memory, which can be full or broken. It knows each page by a number that is never used again.</summary>
internal sealed class MemoryStore : ISwapStore
{
    private readonly Lock _gate = new();
    private readonly Dictionary<ulong, (byte[] Page, ulong[] Cluster)> _pages = [];
    private ulong _next = 1, _written, _read;

    internal bool IsFull { get; set; }

    internal bool IsBroken { get; set; }

    /// <summary>More it does not keep.</summary>
    internal int MostPages { get; set; } = int.MaxValue;

    /// <summary>How long each read and each write takes.</summary>
    internal TimeSpan Delay { get; set; }

    /// <summary>So many writes fail from now on.</summary>
    internal int FailingWrites { get; set; }

    internal int Held
    {
        get
        {
            lock (_gate)
            {
                return _pages.Count;
            }
        }
    }

    public SwapStatistics Statistics => new((ulong)Held, (ulong)Held * 4096, ulong.MaxValue, _written, _read, 0, 0);

    public void Write(ReadOnlySpan<byte> pages, Span<SwapSlot> slots)
    {
        if (IsFull || Held + slots.Length > MostPages)
        {
            throw new SwapStoreException("full", isFull: true);
        }

        Thread.Sleep(Delay);
        if (FailingWrites > 0)
        {
            FailingWrites--;
            throw new SwapStoreException("the disk did not take it");
        }

        lock (_gate)
        {
            ulong[] cluster = [.. Enumerable.Range(0, slots.Length).Select(_ => _next++)];
            for (int i = 0; i < slots.Length; i++)
            {
                _pages.Add(cluster[i], (pages.Slice(i * 4096, 4096).ToArray(), cluster));
                slots[i] = new SwapSlot(cluster[i]);
                _written++;
            }
        }
    }

    public int Read(SwapSlot slot, Span<byte> pages, Span<SwapSlot> slots)
    {
        if (IsBroken)
        {
            throw new SwapStoreException("page 7 was changed");
        }

        Thread.Sleep(Delay);

        lock (_gate)
        {
            int count = 0;
            (byte[] first, ulong[] cluster) = _pages[slot.Value];
            first.CopyTo(pages);
            slots[count++] = slot;
            foreach (ulong other in cluster)
            {
                if (count < slots.Length && other != slot.Value && _pages.TryGetValue(other, out (byte[] Page, ulong[] Cluster) found))
                {
                    found.Page.CopyTo(pages[(count * 4096)..]);
                    slots[count++] = new SwapSlot(other);
                }
            }

            _read += (ulong)count;
            return count;
        }
    }

    public void Free(SwapSlot slot)
    {
        lock (_gate)
        {
            if (!_pages.Remove(slot.Value))
            {
                throw new InvalidOperationException($"slot {slot.Value} is freed twice");
            }
        }
    }

    public ulong Trim(ulong most) => 0;

    public void Dispose()
    {
    }
}
