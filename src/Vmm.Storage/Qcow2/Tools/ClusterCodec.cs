using System.IO.Compression;
using ZstdSharp;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Compresses and decompresses clusters: raw deflate (RFC 1951) or Zstandard (RFC 8878). For one thread.</summary>
internal sealed class ClusterCodec(Qcow2Compression kind) : IDisposable
{
    private readonly MemoryStream _buffer = new();
    private Compressor? _compressor;
    private Decompressor? _decompressor;

    /// <summary>The compressed bytes; null when they are no fewer.</summary>
    internal byte[]? Compress(ReadOnlySpan<byte> cluster)
    {
        byte[] bytes;
        if (kind == Qcow2Compression.Zstd)
        {
            bytes = (_compressor ??= new Compressor()).Wrap(cluster).ToArray();
        }
        else
        {
            _buffer.SetLength(0);
            using (DeflateStream deflate = new(_buffer, CompressionLevel.Optimal, leaveOpen: true))
            {
                deflate.Write(cluster);
            }

            bytes = _buffer.ToArray();
        }

        return bytes.Length < cluster.Length ? bytes : null;
    }

    /// <summary>Fills a cluster from compressed bytes, behind which there may be others. False when they are damaged.</summary>
    internal bool TryDecompress(byte[] bytes, int length, Span<byte> cluster)
    {
        _decompressor ??= kind == Qcow2Compression.Zstd ? new Decompressor() : null;
        return CompressedCluster.TryDecompress(kind, bytes, length, cluster, _decompressor);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _buffer.Dispose();
        _compressor?.Dispose();
        _decompressor?.Dispose();
    }
}
