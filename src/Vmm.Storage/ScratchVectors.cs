using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// One vector of our own for each request of a loop: for the rest of a vector of which the kernel did a part, and for zeros. Made where
/// they are needed.
/// </summary>
internal sealed class ScratchVectors : IDisposable
{
    private const int PerBlock = 64;

    private NativeArray<IoVector>?[] _blocks = [];

    /// <summary>Sets the vector of a request; its address.</summary>
    internal nint Set(int number, IoVector vector)
    {
        int block = number / PerBlock, at = number % PerBlock;
        if (block >= _blocks.Length)
        {
            Array.Resize(ref _blocks, block + 1);
        }

        NativeArray<IoVector> vectors = _blocks[block] ??= new NativeArray<IoVector>(PerBlock);
        vectors.Span[at] = vector;
        return vectors.AddressOf(at);
    }

    public void Dispose()
    {
        foreach (NativeArray<IoVector>? block in _blocks)
        {
            block?.Dispose();
        }
    }
}
