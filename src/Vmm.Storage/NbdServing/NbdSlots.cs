using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.NbdServing;

/// <summary>A request of a client, from its head to the last byte of its reply.</summary>
internal sealed class NbdSlot
{
    private readonly int[] _pieces = new int[NbdPayloads.MostPieces];

    internal NbdSlot(IBlockOwner owner, int number) => Request = new BlockRequest(owner, number);

    /// <summary>The request to the disk.</summary>
    internal BlockRequest Request { get; }

    /// <summary>What the client asked for.</summary>
    internal NbdRequest Asked { get; set; }

    /// <summary>How it ended, as the protocol has it; 0 is well.</summary>
    internal uint Error { get; set; }

    /// <summary>Bytes of its data that came, or of its reply that went.</summary>
    internal uint Moved { get; set; }

    /// <summary>Its pieces of memory.</summary>
    internal Span<int> Pieces => _pieces.AsSpan(0, PieceCount);

    /// <summary>How many they are.</summary>
    internal int PieceCount { get; set; }

    /// <summary>Bytes of its reply.</summary>
    internal uint ReplyLength => NbdWire.ReplyBytes + (Asked.Kind == NbdRequestKind.Read && Error == 0 ? Asked.Length : 0);
}

/// <summary>The requests of one connection, a fixed number, with their memory.</summary>
internal sealed class NbdSlots : IDisposable
{
    /// <summary>Most requests of a client at once; the next one is read when one of them was answered.</summary>
    internal const int Depth = 128;

    private readonly NbdPayloads _payloads = new();
    private readonly NativeArray<IoVector> _vectors = new(Depth * NbdPayloads.MostPieces);
    private readonly NbdSlot[] _slots = new NbdSlot[Depth];
    private readonly int[] _free = new int[Depth];
    private readonly IoLoop _loop;
    private int _freeCount;

    internal NbdSlots(IBlockOwner owner, IoLoop loop)
    {
        _loop = loop;
        for (int i = Depth - 1; i >= 0; i--)
        {
            _slots[i] = new NbdSlot(owner, i);
            loop.Add(_slots[i].Request);
            _free[_freeCount++] = i;
        }
    }

    /// <summary>The slot of a number.</summary>
    internal NbdSlot this[int number] => _slots[number];

    /// <summary>Takes a slot with memory for a request's data; null when there is none now.</summary>
    /// <param name="asked">The request.</param>
    /// <param name="length">Bytes of its data, 0 for one that is refused or moves none.</param>
    internal NbdSlot? TryTake(in NbdRequest asked, uint length)
    {
        if (_freeCount == 0)
        {
            return null;
        }

        NbdSlot slot = _slots[_free[_freeCount - 1]];
        slot.PieceCount = (int)((length + NbdPayloads.PieceBytes - 1) / NbdPayloads.PieceBytes);
        if (!_payloads.TryTake(slot.Pieces))
        {
            slot.PieceCount = 0;
            return null;
        }

        _freeCount--;
        (slot.Asked, slot.Error, slot.Moved) = (asked, 0, 0);
        return slot;
    }

    /// <summary>A slot is free again.</summary>
    internal void Return(NbdSlot slot)
    {
        _payloads.Return(slot.Pieces);
        slot.PieceCount = 0;
        _free[_freeCount++] = slot.Request.Token;
    }

    /// <summary>Gives the request to the disk the slot's memory.</summary>
    internal void SetData(NbdSlot slot)
    {
        Span<IoVector> vectors = _vectors.Span.Slice(slot.Request.Token * NbdPayloads.MostPieces, slot.PieceCount);
        uint left = slot.Asked.Length;
        for (int i = 0; i < vectors.Length; i++)
        {
            uint length = Math.Min(left, NbdPayloads.PieceBytes);
            vectors[i] = new IoVector(_payloads.Address(slot.Pieces[i]), length);
            left -= length;
        }

        slot.Request.SetData(vectors);
    }

    /// <summary>The slot's memory from a byte of its data on, to the end of a piece or of the data.</summary>
    internal Span<byte> Data(NbdSlot slot, uint from)
    {
        int at = (int)(from % NbdPayloads.PieceBytes);
        int length = (int)Math.Min(NbdPayloads.PieceBytes - at, slot.Asked.Length - from);
        return _payloads.Bytes(slot.Pieces[(int)(from / NbdPayloads.PieceBytes)]).Slice(at, length);
    }

    /// <summary>Nothing of it is at the disk any more.</summary>
    public void Dispose()
    {
        foreach (NbdSlot slot in _slots)
        {
            _loop.Remove(slot.Request);
        }

        _payloads.Dispose();
        _vectors.Dispose();
    }
}
