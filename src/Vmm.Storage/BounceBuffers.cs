using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// Aligned memory of one queue for transfers that O_DIRECT refuses with the guest's own. A fixed number: a request that finds none waits
/// for one that is given back. The memory is there from the first such request on.
/// </summary>
/// <param name="alignment">Of the memory, in bytes.</param>
/// <param name="bytes">Bytes of one buffer.</param>
/// <param name="count">How many there are.</param>
internal sealed class BounceBuffers(int alignment, int bytes = BounceBuffers.BufferBytes, int count = BounceBuffers.Count) : IDisposable
{
    /// <summary>Bytes of one buffer of a file; longer requests go in pieces.</summary>
    internal const int BufferBytes = 128 * 1024;

    private const int Count = 4;

    private readonly int[] _free = new int[count];
    private NativeArray<byte>? _memory;
    private NativeArray<IoVector>? _vectors;
    private int _freeCount;
    private bool _made;

    /// <summary>Takes a buffer; -1 when all are in use.</summary>
    internal int Take()
    {
        if (!_made)
        {
            Make();
        }

        return _freeCount > 0 ? _free[--_freeCount] : -1;
    }

    /// <summary>Gives a buffer back.</summary>
    internal void Return(int buffer) => _free[_freeCount++] = buffer;

    /// <summary>The bytes of a buffer.</summary>
    internal Span<byte> Bytes(int buffer) => _memory!.Span.Slice(buffer * bytes, bytes);

    /// <summary>The address of a buffer.</summary>
    internal nint Address(int buffer) => _memory!.AddressOf(buffer * bytes);

    /// <summary>The address of an iovec for a piece of a buffer; valid until the next one of this buffer is asked for.</summary>
    internal nint Vector(int buffer, uint from, uint length)
    {
        _vectors!.Span[buffer] = new IoVector(_memory!.AddressOf((buffer * bytes) + (int)from), length);
        return _vectors.AddressOf(buffer);
    }

    public void Dispose()
    {
        _memory?.Dispose();
        _vectors?.Dispose();
    }

    private void Make()
    {
        _memory = new NativeArray<byte>(count * bytes, alignment);
        _vectors = new NativeArray<IoVector>(count);
        _freeCount = count;
        for (int i = 0; i < count; i++)
        {
            _free[i] = i;
        }

        _made = true;
    }
}
