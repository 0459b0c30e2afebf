namespace Vmm.Memory.Paging;

/// <summary>What is done to pages, by their numbers in the <see cref="ResidencyCache"/>. Pages of one call lie in one group.</summary>
internal interface IPageMapper
{
    /// <summary>Takes pages from who accesses them; they stay in memory.</summary>
    void Unmap(ulong page, int count);

    /// <summary>Copies the content of pages out that are not mapped.</summary>
    void Read(ulong page, int count, Span<byte> content);

    /// <summary>The same of pages that may be mapped; nobody writes them.</summary>
    void Peek(ulong page, int count, Span<byte> content);

    /// <summary>Moves pages that are mapped to another host node; those that cannot go stay.</summary>
    /// <param name="moved">Numbers of pages of one memory, ascending.</param>
    /// <param name="hostNode">Where to.</param>
    /// <returns>0, or the errno with which the kernel gave up.</returns>
    int MoveTo(ReadOnlySpan<ulong> moved, int hostNode);

    /// <summary>Takes pages out of memory: they are empty.</summary>
    void Drop(ulong page, int count);

    /// <summary>It can say which pages were written.</summary>
    bool Protects { get; }

    /// <summary>Pages that were written since they were mapped to be kept, or never were: a bit each. Nobody can write them now.</summary>
    uint Written(ulong page, int count);

    /// <summary>Puts pages in place that are not in memory, maps them, and wakes who waits for them.</summary>
    /// <param name="page">The first.</param>
    /// <param name="content">What they hold: whole pages.</param>
    /// <param name="kept">Whether it is written is to be known.</param>
    void Fill(ulong page, ReadOnlySpan<byte> content, bool kept);

    /// <summary>The same with zeros.</summary>
    void Zero(ulong page);

    /// <summary>Maps a page that is in memory, and wakes who waits for it.</summary>
    /// <param name="page">The page.</param>
    /// <param name="kept">Whether it is written is to be known.</param>
    void Map(ulong page, bool kept);

    /// <summary>Lets who waits for the pages look again.</summary>
    void Wake(ulong page, int count);
}
