using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>Opens the images of a chain one after the other.</summary>
/// <param name="options">How the top is opened.</param>
/// <param name="open">Opens a file.</param>
/// <param name="images">Takes what was opened.</param>
internal sealed class ImageOpening(RawFileOptions options, ImageFileOpener open, List<ChainImage> images)
{
    private const int BytesBeforeSize = 24; // of the header, up to and with the size of a cluster

    private readonly Dictionary<FileIdentity, string> _seen = [];

    /// <summary>Opens, locks and checks an image.</summary>
    /// <returns>The one below it; null: there is none.</returns>
    /// <exception cref="BlockException">It cannot be an image of this chain.</exception>
    internal BackingReference? Add(BackingReference image)
    {
        if (images.Count == DiskImageChain.MostImages)
        {
            throw Error(image, $"has a chain of more than {DiskImageChain.MostImages} images: convert it to one, or rebase it",
                BlockErrorKind.NotADisk, images[0].File.Path);
        }

        RawFileBackend file = Open(image);
        images.Add(new ChainImage(file, image.Format)); // closed with the others, whatever comes
        ulong length = BlockFile.Inspect(file.Buffered).Size;
        if (image.Format == ImageFormat.Raw)
        {
            return length > 0 ? null : throw Error(image, "is empty: it was cut, or never written", BlockErrorKind.BadSize);
        }

        Qcow2Header header;
        try
        {
            header = ReadHeader(file, length);
        }
        catch (BlockException cause) when (image.Of is { } above)
        {
            throw new BlockException(cause.Kind, $"{cause.Message} (it is the backing file of {above})", cause) { Path = image.Path };
        }

        images[^1] = images[^1] with { Header = header };
        CheckLength(image, header, length);
        return BackingReference.From(header, image.Path);
    }

    private RawFileBackend Open(BackingReference image)
    {
        RawFileOptions own = options with { ReadOnly = options.ReadOnly || image.Of is not null, IsImage = true };
        try
        {
            FileDescriptorHandle opened = open(image.Path, !own.ReadOnly);
            try
            {
                FileIdentity identity = BlockFile.Identify(opened);
                if (_seen.TryGetValue(identity, out string? same))
                {
                    throw Error(image, $"is the same file as {same}, which is above it in the chain: a loop; "
                        + "'qemu-img rebase -u' names another backing file", BlockErrorKind.NotADisk);
                }

                _seen.Add(identity, image.Path);
            }
            catch
            {
                opened.Dispose();
                throw;
            }

            return RawFileBackend.Open(image.Path, own, opened);
        }
        catch (BlockException cause) when (image.Of is { } above && !cause.Message.Contains(above, StringComparison.Ordinal))
        {
            throw new BlockException(cause.Kind, $"{cause.Message} (it is the backing file of {above})", cause) { Path = image.Path };
        }
    }

    internal static Qcow2Header ReadHeader(RawFileBackend file, ulong length)
    {
        Span<byte> start = stackalloc byte[BytesBeforeSize];
        int bits = BlockFile.ReadAt(file.Buffered, start, 0) < start.Length ? 0 : (int)Math.Clamp(
            BinaryPrimitives.ReadUInt32BigEndian(start[20..]), Qcow2Geometry.MinClusterBits, Qcow2Geometry.MaxClusterBits);
        byte[] cluster = new byte[Math.Min(length, 1ul << bits)];
        int read = BlockFile.ReadAt(file.Buffered, cluster, 0);
        return Qcow2Header.Parse(cluster.AsSpan(0, read), file.Path);
    }

    // A block device is as long as it is; an image in it may be shorter.
    private static void CheckLength(BackingReference image, Qcow2Header header, ulong length)
    {
        ulong end = Math.Max(
            header.L1Offset + (header.L1Size * 8ul),
            header.RefcountTableOffset + ((ulong)header.RefcountTableClusters << header.Geometry.ClusterBits));
        if (end > length)
        {
            throw Error(image, $"has {length} bytes, and its tables reach to {end}: it was cut", BlockErrorKind.BadSize);
        }
    }

    private static BlockException Error(BackingReference image, string why, BlockErrorKind kind, string? path = null)
    {
        string of = image.Of is { } above && path is null ? $" (it is the backing file of {above})" : "";
        return new BlockException(kind, $"disk {path ?? image.Path} {why}{of}") { Path = path ?? image.Path };
    }
}
