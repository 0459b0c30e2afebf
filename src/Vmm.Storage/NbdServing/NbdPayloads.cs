using Vmm.Interop;

namespace Vmm.Storage.NbdServing;

/// <summary>
/// The memory of what one connection reads and writes: pieces of one size, of which a request takes as many as it needs. There is no other
/// memory for data, whatever a client asks for. Pages appear when they are used.
/// </summary>
internal sealed class NbdPayloads : IDisposable
{
    /// <summary>Bytes of a piece.</summary>
    internal const int PieceBytes = 64 << 10;

    /// <summary>Pieces of the longest request.</summary>
    internal const int MostPieces = (int)(NbdServed.MostPayload / PieceBytes);

    private const int Pieces = 4 * MostPieces;

    private readonly NativeArray<byte> _memory = new(Pieces * PieceBytes, 4096);
    private readonly int[] _free = new int[Pieces];
    private int _freeCount;

    internal NbdPayloads()
    {
        for (int i = Pieces - 1; i >= 0; i--)
        {
            _free[_freeCount++] = i;
        }
    }

    /// <summary>Takes as many pieces as <paramref name="pieces"/> has room for; false when there are not enough.</summary>
    internal bool TryTake(Span<int> pieces)
    {
        if (pieces.Length > _freeCount)
        {
            return false;
        }

        for (int i = 0; i < pieces.Length; i++)
        {
            pieces[i] = _free[--_freeCount];
        }

        return true;
    }

    /// <summary>Gives pieces back.</summary>
    internal void Return(ReadOnlySpan<int> pieces)
    {
        for (int i = pieces.Length - 1; i >= 0; i--)
        {
            _free[_freeCount++] = pieces[i];
        }
    }

    /// <summary>The address of a piece.</summary>
    internal nint Address(int piece) => _memory.AddressOf(piece * PieceBytes);

    /// <summary>The bytes of a piece.</summary>
    internal Span<byte> Bytes(int piece) => _memory.Span.Slice(piece * PieceBytes, PieceBytes);

    public void Dispose() => _memory.Dispose();
}
