using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// A piece of an L2 table in memory, as in the file. Under the disk's lock, but for its bytes while it is being loaded: they are the
/// loader's alone then.
/// </summary>
internal sealed class L2Slot : IDisposable
{
    private readonly NativeArray<byte> _bytes = new(L2Cache.SliceBytes, L2Cache.SliceBytes);
    private readonly NativeArray<IoVector> _vector = new(1);

    /// <summary>Which slice it holds: <see cref="L2Cache.KeyOf"/>.</summary>
    internal ulong Key { get; set; }

    /// <summary>Its bytes are there.</summary>
    internal bool IsLoaded { get; set; }

    /// <summary>Allocations under way that will change an entry of it.</summary>
    internal int Pins { get; set; }

    /// <summary>Differs from the file.</summary>
    internal bool IsDirty { get; set; }

    /// <summary>The generation in which it became different.</summary>
    internal long DirtySince { get; set; }

    /// <summary>A copy of it is being written.</summary>
    internal bool IsBeingWritten { get; set; }

    /// <summary>Was used since the clock's hand passed it.</summary>
    internal bool IsUsed { get; set; }

    /// <summary>Who waits for its bytes.</summary>
    internal OperationList Waiters;

    /// <summary>May be given to another slice.</summary>
    internal bool IsEvictable => IsLoaded && Pins == 0 && !IsDirty && !IsBeingWritten;

    internal Span<byte> Bytes => _bytes.Span;

    /// <summary>The vector of its first bytes, for a read.</summary>
    internal ReadOnlySpan<IoVector> VectorOf(int bytes)
    {
        _vector.Span[0] = new IoVector(_bytes.AddressOf(0), (nuint)bytes);
        return _vector.Span;
    }

    internal L2Entry Entry(int index, bool extended)
    {
        ReadOnlySpan<byte> bytes = _bytes.Span;
        if (!extended)
        {
            return new(BinaryPrimitives.ReadUInt64BigEndian(bytes[(index * 8)..]));
        }

        bytes = bytes[(index * 16)..];
        return new(BinaryPrimitives.ReadUInt64BigEndian(bytes), BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]));
    }

    internal void Set(int index, bool extended, L2Entry entry)
    {
        Span<byte> bytes = _bytes.Span;
        BinaryPrimitives.WriteUInt64BigEndian(bytes[(index * (extended ? 16 : 8))..], entry.Bits);
        if (extended)
        {
            BinaryPrimitives.WriteUInt64BigEndian(bytes[((index * 16) + 8)..], entry.Bitmap);
        }
    }

    public void Dispose()
    {
        _bytes.Dispose();
        _vector.Dispose();
    }
}
