namespace Vmm.Memory.Paging;

/// <summary>Buffers of one thread that moves pages.</summary>
internal sealed class MoverRoom
{
    private readonly byte[] _content = GC.AllocateUninitializedArray<byte>(ISwapStore.MostPages * ISwapStore.PageBytes, pinned: true);
    private readonly byte[] _packed = GC.AllocateUninitializedArray<byte>(ISwapStore.MostPages * ISwapStore.PageBytes, pinned: true);
    private readonly SwapSlot[] _slots = new SwapSlot[ISwapStore.MostPages];

    private byte[]? _chunk;

    /// <summary>First page of the chunk of a saved file that is in <see cref="ChunkContent"/>; null: none.</summary>
    internal ulong? Chunk { get; set; }

    /// <summary>A chunk of a saved file.</summary>
    internal Span<byte> ChunkContent => _chunk ??= GC.AllocateUninitializedArray<byte>(ISavedPages.ChunkBytes, pinned: true);

    /// <summary>Nothing comes from saved files any more.</summary>
    internal void ForgetChunk() => (_chunk, Chunk) = (null, null);

    /// <summary>Pages as they were read.</summary>
    internal Span<byte> Content => _content;

    /// <summary>Pages that are to be written, one after the other.</summary>
    internal Span<byte> Packed => _packed;

    /// <summary>Their slots.</summary>
    internal Span<SwapSlot> Slots => _slots;
}
