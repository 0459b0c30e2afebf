using System.IO.Compression;
using ZstdSharp;

namespace Vmm.Storage.Qcow2;

/// <summary>Compressed clusters: raw deflate (RFC 1951) or Zstandard (RFC 8878).</summary>
internal static class CompressedCluster
{
    /// <summary>
    /// Fills a cluster from compressed bytes, behind which there may be another's: whole sectors were read. False when they are damaged.
    /// </summary>
    /// <param name="kind">How they were compressed.</param>
    /// <param name="bytes">Begins with the compressed bytes.</param>
    /// <param name="length">How many of them to look at.</param>
    /// <param name="cluster">The whole cluster.</param>
    /// <param name="zstd">To be used again and again; null: one is made.</param>
    internal static bool TryDecompress(Qcow2Compression kind, byte[] bytes, int length, Span<byte> cluster, Decompressor? zstd = null)
    {
        try
        {
            using MemoryStream source = new(bytes, 0, length, writable: false);
            using Stream stream = kind != Qcow2Compression.Zstd ? new DeflateStream(source, CompressionMode.Decompress)
                : zstd is null ? new DecompressionStream(source)
                : new DecompressionStream(source, zstd, preserveDecompressor: true);
            return stream.ReadAtLeast(cluster, cluster.Length, throwOnEndOfStream: false) == cluster.Length;
        }
        catch (Exception e) when (e is InvalidDataException or ZstdException or EndOfStreamException)
        {
            return false;
        }
    }
}
