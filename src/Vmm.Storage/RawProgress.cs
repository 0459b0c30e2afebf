using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>What a request does to the file.</summary>
internal enum RawOperation : byte
{
    Read,
    Write,
    Flush,
    Discard,
    ZeroRange,
    ZeroByPunch,
    ZeroByWriting,
}

/// <summary>How far a request on a raw file is. The request itself and its vectors stay as they are.</summary>
internal struct RawProgress
{
    internal RawOperation Operation;

    /// <summary>Where the rest of the request begins, in bytes of the disk.</summary>
    internal ulong Offset;

    /// <summary>Bytes still to do.</summary>
    internal ulong Remaining;

    /// <summary>The vector in which the rest begins, and how many of its bytes are done.</summary>
    internal int Vector;
    internal uint VectorDone;

    /// <summary>The file takes the rest with the memory it came with.</summary>
    internal bool Fits;

    /// <summary>FUA: a flush follows before the request is done.</summary>
    internal bool SyncAfter;

    /// <summary>A flush of the file is in flight for it.</summary>
    internal bool IsFlushing;

    /// <summary>Of a flush: the number of writes that had ended when it began.</summary>
    internal long Covers;

    /// <summary>Its entry in <see cref="WriteRanges"/>; -1 is none.</summary>
    internal int Ticket;

    /// <summary>Its bounce buffer; -1 is none.</summary>
    internal int Buffer;

    /// <summary>The piece in the buffer: whole blocks of the disk, which hold <see cref="PieceLength"/> bytes of the request.</summary>
    internal ulong BlocksAt;
    internal uint BlocksLength, BlocksDone, PieceLength;

    /// <summary>The blocks are being read to be changed; then they are written.</summary>
    internal bool Filling;

    /// <summary>How it ended, where another thread than that of its loop did it.</summary>
    internal DiskStatus Status;

    /// <summary>Connections that were lost while a server had it.</summary>
    internal int Losses;

    internal readonly bool Transfers => Operation is RawOperation.Read or RawOperation.Write or RawOperation.ZeroByWriting;

    /// <summary>The first <paramref name="done"/> bytes of the rest are done.</summary>
    internal void Skip(ReadOnlySpan<IoVector> vectors, uint done)
    {
        Offset += done;
        Remaining -= Math.Min(done, Remaining);
        if (Operation == RawOperation.ZeroByWriting)
        {
            return;
        }

        uint left = done;
        while (Vector < vectors.Length)
        {
            uint rest = (uint)vectors[Vector].Length - VectorDone;
            if (left < rest)
            {
                VectorDone += left;
                return;
            }

            left -= rest;
            Vector++;
            VectorDone = 0;
        }
    }

    /// <summary>Copies the beginning of the rest out of the vectors; zeros when it writes zeros.</summary>
    internal readonly void CopyTo(ReadOnlySpan<IoVector> vectors, Span<byte> destination)
    {
        if (Operation == RawOperation.ZeroByWriting)
        {
            destination.Clear();
            return;
        }

        for (int i = Vector; i < vectors.Length && !destination.IsEmpty; i++)
        {
            Span<byte> part = Piece(vectors, i, destination.Length);
            part.CopyTo(destination);
            destination = destination[part.Length..];
        }
    }

    /// <summary>The rest of a read is zeros.</summary>
    internal readonly void FillWithZeros(ReadOnlySpan<IoVector> vectors)
    {
        for (int i = Vector; i < vectors.Length; i++)
        {
            Piece(vectors, i, int.MaxValue).Clear();
        }
    }

    /// <summary>Copies into the vectors, from the beginning of the rest on.</summary>
    internal readonly void CopyFrom(ReadOnlySpan<IoVector> vectors, ReadOnlySpan<byte> source)
    {
        for (int i = Vector; i < vectors.Length && !source.IsEmpty; i++)
        {
            Span<byte> part = Piece(vectors, i, source.Length);
            source[..part.Length].CopyTo(part);
            source = source[part.Length..];
        }
    }

    private readonly Span<byte> Piece(ReadOnlySpan<IoVector> vectors, int index, int most)
    {
        uint skip = index == Vector ? VectorDone : 0;
        return HostSpan.Bytes(vectors[index].Base + (nint)skip, (int)Math.Min((uint)vectors[index].Length - skip, (uint)most));
    }
}
