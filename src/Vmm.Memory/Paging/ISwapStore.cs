namespace Vmm.Memory.Paging;

/// <summary>
/// Keeps pages that were taken out of memory, and gives them back as they were. Any number of threads. A page is read as often as wanted
/// until its slot is freed. Nothing is allocated per call.
/// </summary>
public interface ISwapStore : IDisposable
{
    /// <summary>Bytes of a page.</summary>
    const int PageBytes = 4096;

    /// <summary>Most pages of one <see cref="Write"/>; pages that were written together can be read together.</summary>
    const int MostPages = 16;

    /// <summary>Writes pages as one cluster: all of them, or none.</summary>
    /// <param name="pages">One to <see cref="MostPages"/> pages, one after the other.</param>
    /// <param name="slots">Where each of them lies.</param>
    /// <exception cref="SwapStoreException">No room is left, or the file cannot be written; nothing was kept.</exception>
    void Write(ReadOnlySpan<byte> pages, Span<SwapSlot> slots);

    /// <summary>
    /// Reads the page of a slot, and those of its cluster that are not freed: the asked one first, then the others in the order of the
    /// write. One that another thread frees meanwhile may be among them.
    /// </summary>
    /// <param name="slot">A slot that is not freed, nor is while it is read.</param>
    /// <param name="pages">Room for 1 to <see cref="MostPages"/> pages: that many are read at most.</param>
    /// <param name="slots">As many slots: of what was read.</param>
    /// <returns>How many were read.</returns>
    /// <exception cref="SwapStoreException">The file cannot be read, or has not the content that was written.</exception>
    int Read(SwapSlot slot, Span<byte> pages, Span<SwapSlot> slots);

    /// <summary>Ends a slot. Its room is used again when every slot of its cluster is free.</summary>
    void Free(SwapSlot slot);

    /// <summary>
    /// Gives room that nothing uses back to whoever has the storage, a piece at a time: from time to time, by one thread. Nothing happens
    /// where that cannot be done.
    /// </summary>
    /// <param name="most">Most bytes of this call.</param>
    /// <returns>Bytes given back.</returns>
    ulong Trim(ulong most);

    /// <summary>What it holds.</summary>
    SwapStatistics Statistics { get; }
}

/// <summary>What a swap store holds.</summary>
/// <param name="Pages">Pages in slots that are not freed.</param>
/// <param name="FileBytes">Bytes of the file in use.</param>
/// <param name="LimitBytes">Bytes that it may take.</param>
/// <param name="PagesWritten">Pages written so far.</param>
/// <param name="PagesRead">Pages read so far.</param>
/// <param name="BytesWritten">Bytes written to the file so far.</param>
/// <param name="BytesRead">Bytes read from the file so far.</param>
public readonly record struct SwapStatistics(
    ulong Pages, ulong FileBytes, ulong LimitBytes, ulong PagesWritten, ulong PagesRead, ulong BytesWritten, ulong BytesRead);

/// <summary>A swap store cannot write, or cannot give back what was written.</summary>
/// <param name="message">What failed, for people.</param>
/// <param name="isFull">No room is left: the file's limit is reached, or its file system is full.</param>
/// <param name="cause">What the kernel said.</param>
public sealed class SwapStoreException(string message, bool isFull = false, Exception? cause = null) : IOException(message, cause)
{
    /// <summary>True when no room is left.</summary>
    public bool IsFull => isFull;
}
