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

/// <summary>One request in flight on a raw file, and how far it is.</summary>
internal struct RawRequest
{
    internal ulong Tag;
    internal RawOperation Operation;

    /// <summary>Where the rest of the request begins, in bytes of the disk.</summary>
    internal ulong Offset;

    /// <summary>Bytes still to do.</summary>
    internal ulong Remaining;

    /// <summary>Address and number of the iovecs of the rest.</summary>
    internal nint Vectors;
    internal int Count;

    /// <summary>Its entry in <see cref="WriteRanges"/>; -1 is none.</summary>
    internal int Ticket;

    /// <summary>Its bounce buffer; -1 is none.</summary>
    internal int Buffer;

    /// <summary>The piece in the buffer: whole blocks of the disk, which hold <see cref="PieceLength"/> bytes of the request.</summary>
    internal ulong BlocksAt;
    internal uint BlocksLength, BlocksDone, PieceLength;

    /// <summary>The blocks are being read to be changed; then they are written.</summary>
    internal bool Filling;

    internal readonly bool Transfers => Operation is RawOperation.Read or RawOperation.Write or RawOperation.ZeroByWriting;

    /// <summary>The first <paramref name="done"/> bytes of the rest are done.</summary>
    internal void Skip(uint done)
    {
        Offset += done;
        Remaining -= Math.Min(done, Remaining);
        if (Operation == RawOperation.ZeroByWriting)
        {
            return;
        }

        nuint left = done;
        Span<IoVector> vectors = HostSpan.Vectors(Vectors, Count);
        int skip = 0;
        while (skip < vectors.Length && vectors[skip].Length <= left)
        {
            left -= vectors[skip++].Length;
        }

        if (skip < vectors.Length)
        {
            vectors[skip] = new IoVector(vectors[skip].Base + (nint)left, vectors[skip].Length - left);
        }

        Vectors += skip * 16;
        Count -= skip;
    }

    /// <summary>Copies the beginning of the rest out of the iovecs; zeros when it writes zeros.</summary>
    internal readonly void CopyTo(Span<byte> destination)
    {
        if (Operation == RawOperation.ZeroByWriting)
        {
            destination.Clear();
            return;
        }

        foreach (ref readonly IoVector v in HostSpan.Vectors(Vectors, Count))
        {
            int part = (int)Math.Min(v.Length, (nuint)destination.Length);
            HostSpan.Bytes(v.Base, part).CopyTo(destination);
            destination = destination[part..];
        }
    }

    /// <summary>Copies into the iovecs, from the beginning of the rest on.</summary>
    internal readonly void CopyFrom(ReadOnlySpan<byte> source)
    {
        foreach (ref readonly IoVector v in HostSpan.Vectors(Vectors, Count))
        {
            int part = (int)Math.Min(v.Length, (nuint)source.Length);
            source[..part].CopyTo(HostSpan.Bytes(v.Base, part));
            source = source[part..];
        }
    }
}
