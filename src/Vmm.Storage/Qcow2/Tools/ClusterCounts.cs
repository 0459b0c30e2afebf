namespace Vmm.Storage.Qcow2.Tools;

/// <summary>How often each cluster of a file is used. Takes memory only where something is: four bytes a cluster.</summary>
internal sealed class ClusterCounts
{
    private const int PageBits = 10;

    private readonly Dictionary<ulong, uint[]> _pages = [];

    /// <summary>The cluster behind the last one that is used.</summary>
    internal ulong End { get; private set; }

    /// <summary>Uses of a cluster.</summary>
    internal uint this[ulong cluster] =>
        _pages.TryGetValue(cluster >> PageBits, out uint[]? page) ? page[cluster & ((1 << PageBits) - 1)] : 0;

    /// <summary>So many more uses; stays at the largest number there is.</summary>
    internal void Add(ulong cluster, uint times = 1)
    {
        if (!_pages.TryGetValue(cluster >> PageBits, out uint[]? page))
        {
            page = new uint[1 << PageBits];
            _pages.Add(cluster >> PageBits, page);
        }

        ref uint count = ref page[cluster & ((1 << PageBits) - 1)];
        count = (uint)Math.Min((ulong)count + times, uint.MaxValue);
        End = Math.Max(End, cluster + 1);
    }

    /// <summary>One more use of each of some clusters.</summary>
    internal void AddRange(ulong first, ulong count)
    {
        for (ulong i = 0; i < count; i++)
        {
            Add(first + i);
        }
    }

    /// <summary>True when one of the clusters may be used.</summary>
    internal bool MayUseAny(ulong first, ulong count)
    {
        for (ulong page = first >> PageBits; page <= (first + count - 1) >> PageBits; page++)
        {
            if (_pages.ContainsKey(page))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>The clusters that are used, in their order.</summary>
    internal IEnumerable<ulong> Used()
    {
        ulong[] pages = [.. _pages.Keys];
        Array.Sort(pages);
        foreach (ulong number in pages)
        {
            uint[] page = _pages[number];
            for (int i = 0; i < page.Length; i++)
            {
                if (page[i] != 0)
                {
                    yield return (number << PageBits) + (uint)i;
                }
            }
        }
    }
}
