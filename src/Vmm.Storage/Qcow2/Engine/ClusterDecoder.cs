using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Reads compressed clusters of a chain, one at a time, and keeps the last one. It allocates for each: compressed clusters are written
/// once, by tools, and left behind by the first write. One node's.
/// </summary>
internal sealed class ClusterDecoder : IDisposable
{
    private NativeArray<byte>? _compressed;
    private NativeArray<IoVector>? _vector;
    private byte[] _plain = [];
    private (int Layer, ulong Entry) _key = (-1, 0);

    /// <summary>A cluster is being read.</summary>
    internal bool IsBusy { get; private set; }

    /// <summary>Operations that wait for their turn.</summary>
    internal OperationList Waiters;

    /// <summary>The bytes of a cluster, when it is the last that was decoded.</summary>
    internal bool TryFind(int layer, ulong entry, out ReadOnlySpan<byte> plain)
    {
        plain = _plain;
        return !IsBusy && _key == (layer, entry);
    }

    /// <summary>Begins with a cluster: the vector into which its compressed bytes are read.</summary>
    internal ReadOnlySpan<IoVector> Begin(int layer, ulong entry, uint length)
    {
        IsBusy = true;
        _key = (layer, entry);
        if (_compressed is null || _compressed.Length < length)
        {
            _compressed?.Dispose();
            _compressed = new NativeArray<byte>((int)length, 4096);
        }

        _vector ??= new NativeArray<IoVector>(1);
        _vector.Span[0] = new IoVector(_compressed.AddressOf(0), length);
        return _vector.Span;
    }

    /// <summary>The compressed bytes are there, or could not be read. False when they are not those of a cluster.</summary>
    internal bool End(bool wasRead, Qcow2Header header, uint length)
    {
        IsBusy = false;
        bool done = wasRead && Decode(header, _compressed!.Span[..(int)length].ToArray());
        _key = done ? _key : (-1, 0);
        return done;
    }

    public void Dispose()
    {
        _compressed?.Dispose();
        _vector?.Dispose();
    }

    private bool Decode(Qcow2Header header, byte[] compressed)
    {
        int size = (int)header.Geometry.ClusterSize;
        _plain = _plain.Length == size ? _plain : new byte[size];
        return CompressedCluster.TryDecompress(header.Compression, compressed, compressed.Length, _plain);
    }
}
