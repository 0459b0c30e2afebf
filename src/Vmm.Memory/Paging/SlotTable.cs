namespace Vmm.Memory.Paging;

/// <summary>
/// The swap slot of each page that is out. Room is made for 512 pages when the first of them goes out. A page is read and written by the
/// thread that moves it; any number of threads.
/// </summary>
internal sealed class SlotTable(ulong pages)
{
    private const int ChunkShift = 9, ChunkPages = 1 << ChunkShift;
    private readonly ulong[]?[] _chunks = new ulong[]?[(pages + ChunkPages - 1) >> ChunkShift];

    /// <summary>Where a page is in the swap store.</summary>
    internal SwapSlot this[ulong page]
    {
        get => new(Volatile.Read(ref _chunks[page >> ChunkShift]) is { } chunk
            ? Volatile.Read(ref chunk[page & (ChunkPages - 1)]) : 0);

        set
        {
            ref ulong[]? chunk = ref _chunks[page >> ChunkShift];
            if (Volatile.Read(ref chunk) is null)
            {
                Interlocked.CompareExchange(ref chunk, new ulong[ChunkPages], null);
            }

            Volatile.Write(ref chunk![page & (ChunkPages - 1)], value.Value);
        }
    }
}
