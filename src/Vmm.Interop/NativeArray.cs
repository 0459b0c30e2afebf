using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>struct iovec: one piece of memory for vectored I/O.</summary>
/// <param name="Base">Address in this process.</param>
/// <param name="Length">Length in bytes.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IoVector(nint Base, nuint Length);

/// <summary>A zeroed array outside the managed heap, whose address the kernel may keep while I/O is in flight.</summary>
public sealed unsafe class NativeArray<T> : IDisposable where T : unmanaged
{
    private void* _block;
    private T* _items;

    /// <summary>Allocates <paramref name="length"/> items aligned to <paramref name="alignment"/> bytes (a power of two).</summary>
    public NativeArray(int length, int alignment = 64)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        // calloc leaves big blocks untouched until used; its alignment is 16, ours is made by hand.
        _block = NativeMemory.AllocZeroed(checked(((nuint)length * (nuint)sizeof(T)) + (nuint)alignment));
        _items = (T*)(((nuint)_block + (nuint)alignment - 1) & ~((nuint)alignment - 1));
        Length = length;
    }

    /// <summary>Frees the memory if nobody disposed the array.</summary>
    ~NativeArray() => Free();

    /// <summary>Number of items.</summary>
    public int Length { get; }

    /// <summary>The items.</summary>
    public Span<T> Span
    {
        get
        {
            ObjectDisposedException.ThrowIf(_items == null, this);
            return new Span<T>(_items, Length);
        }
    }

    /// <summary>Address of item <paramref name="index"/>.</summary>
    public nint AddressOf(int index)
    {
        ObjectDisposedException.ThrowIf(_items == null, this);
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Length);
        return (nint)(_items + index);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        NativeMemory.Free(_block);
        _block = null;
        _items = null;
    }
}

/// <summary>Spans over memory that is known by address only, e.g. the pieces of an iovec.</summary>
public static unsafe class HostSpan
{
    /// <summary>The <paramref name="length"/> bytes at <paramref name="address"/>; the caller vouches that they stay mapped.</summary>
    public static Span<byte> Bytes(nint address, int length) => new((void*)address, length);

    /// <summary>Where an iovec array lies, for the kernel. It lies outside the managed heap, or it would move.</summary>
    public static nint AddressOf(ReadOnlySpan<IoVector> vectors)
    {
        fixed (IoVector* address = vectors)
        {
            return (nint)address;
        }
    }

    /// <summary>The vectors of an iovec array.</summary>
    public static Span<IoVector> Vectors(nint iovecs, int count) => new((void*)iovecs, count);
}
