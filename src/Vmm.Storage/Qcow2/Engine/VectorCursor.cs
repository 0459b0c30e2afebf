using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>Walks over the memory of a request from its first byte to its last, piece by piece.</summary>
internal struct VectorCursor(nint vectors, int count)
{
    private const int VectorBytes = 16;

    private int _index;
    private nuint _done; // bytes of the vector at _index

    /// <summary>Vectors that the next <paramref name="length"/> bytes touch.</summary>
    internal readonly int CountFor(ulong length)
    {
        ReadOnlySpan<IoVector> all = All;
        int index = _index;
        ulong left = length + _done;
        while (index < count && left > all[index].Length)
        {
            left -= all[index++].Length;
        }

        return Math.Min(index, count - 1) - _index + 1;
    }

    /// <summary>
    /// Where in the request's own array the next bytes lie, when they begin and end with vectors; false when a vector has to be cut.
    /// </summary>
    internal readonly bool IsWhole(ulong length, out nint address, out int vectorCount)
    {
        ReadOnlySpan<IoVector> all = All;
        (address, vectorCount) = (vectors + (_index * VectorBytes), 0);
        ulong sum = 0;
        for (int i = _index; i < count && sum < length; i++, vectorCount++)
        {
            sum += all[i].Length;
        }

        return _done == 0 && sum == length;
    }

    /// <summary>Copies the vectors of the next bytes, cut where needed, and goes on behind them; how many there are.</summary>
    internal int Take(ulong length, Span<IoVector> into)
    {
        ReadOnlySpan<IoVector> all = All;
        int taken = 0;
        while (length > 0 && _index < count)
        {
            IoVector vector = all[_index];
            nuint here = (nuint)Math.Min(length, vector.Length - _done);
            if (here > 0)
            {
                into[taken++] = new IoVector(vector.Base + (nint)_done, here);
            }

            Step(here);
            length -= here;
        }

        return taken;
    }

    /// <summary>Goes on behind the next bytes.</summary>
    internal void Skip(ulong length)
    {
        while (length > 0 && _index < count)
        {
            nuint here = (nuint)Math.Min(length, All[_index].Length - _done);
            Step(here);
            length -= here;
        }
    }

    /// <summary>Fills the next bytes with zeros.</summary>
    internal void Clear(ulong length)
    {
        while (length > 0 && _index < count)
        {
            Span<byte> piece = Piece(length);
            piece.Clear();
            Step((nuint)piece.Length);
            length -= (uint)piece.Length;
        }
    }

    /// <summary>Fills the next bytes.</summary>
    internal void CopyFrom(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty && _index < count)
        {
            Span<byte> piece = Piece((uint)bytes.Length);
            bytes[..piece.Length].CopyTo(piece);
            Step((nuint)piece.Length);
            bytes = bytes[piece.Length..];
        }
    }

    private readonly ReadOnlySpan<IoVector> All => HostSpan.Vectors(vectors, count);

    private readonly Span<byte> Piece(ulong most)
    {
        IoVector vector = All[_index];
        return HostSpan.Bytes(vector.Base + (nint)_done, (int)Math.Min(most, vector.Length - _done));
    }

    private void Step(nuint bytes)
    {
        _done += bytes;
        if (_done == All[_index].Length)
        {
            _index++;
            _done = 0;
        }
    }
}
