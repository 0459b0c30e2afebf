using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Gives a disk another size. What is new reads as zeros.</summary>
public static class ImageResize
{
    /// <summary>Resizes an image.</summary>
    /// <param name="path">The image.</param>
    /// <param name="format"><c>raw</c> or <c>qcow2</c>.</param>
    /// <param name="size">Bytes of the disk, a multiple of 512.</param>
    /// <param name="shrink">It may become smaller, where nothing is mapped behind the new end.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">It cannot have that size; the message says why.</exception>
    public static void Run(string path, string format, ulong size, bool shrink, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        if (string.Equals(format, "raw", StringComparison.Ordinal))
        {
            ResizeRaw(path, size, shrink);
            return;
        }

        using RawImageFile file = ImageFiles.Open(path, writable: true);
        Qcow2Header header = ImageFiles.ReadHeader(file);
        Check(header, path, size, shrink);
        if (size == header.DiskSize)
        {
            return;
        }

        Qcow2Editor editor = new(file, header, progress);
        if (size < header.DiskSize)
        {
            RequireUnmapped(editor, path, size);
            editor.ClearFrom(size);
        }
        else
        {
            ZeroNewPart(file, header, editor, size);
        }

        editor.Resize(size);
        _ = editor.Commit(progress);
    }

    private static void ResizeRaw(string path, ulong size, bool shrink)
    {
        using RawFileBackend file = RawFileBackend.Open(path, new RawFileOptions { IsImage = true, Cache = DiskCacheMode.Buffered });
        ulong has = BlockFile.Inspect(file.Buffered).Size;
        string? problem = SizeProblem(size, has, shrink);
        try
        {
            if (problem is null && size < has && DataExtents.TryFindNext(file.Buffered, size, out ulong at, out _))
            {
                problem = $"there is data at byte {at}, behind the new end; discard it first";
            }

            KernelException.ThrowIfError(problem is null ? BlockFile.Resize(file.Buffered, size) : 0, "resize");
        }
        catch (KernelException e)
        {
            problem = e.Message;
        }

        if (problem is not null)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {path} is not resized: {problem}") { Path = path };
        }
    }

    private static string? SizeProblem(ulong size, ulong has, bool shrink) =>
        size == 0 || size % 512 != 0 || size > 1ul << 62 ? $"{size} bytes are no size of a disk: whole sectors of 512 bytes"
        : size < has && !shrink ? $"it has {has} bytes; --shrink makes it smaller, and only where nothing is mapped behind the new end"
        : null;

    private static void Check(Qcow2Header header, string path, ulong size, bool shrink)
    {
        string? problem = SizeProblem(size, header.DiskSize, shrink) is { } why ? why
            : size < header.DiskSize && !header.Geometry.IsAligned(size)
                ? $"a smaller size has to be whole clusters of {header.Geometry.ClusterSize} bytes"
            : header.Snapshots > 0 && size != header.DiskSize
                ? "it has internal snapshots of the size it has now; delete them first (qemu-img snapshot -d)"
            : (header.Autoclear & Qcow2Autoclear.Bitmaps) != 0 && size != header.DiskSize
                ? "it has bitmaps of the size it has now; remove them first (qemu-img bitmap --remove)"
            : null;
        if (problem is not null)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {path} is not resized: {problem}") { Path = path };
        }
    }

    private static void RequireUnmapped(Qcow2Editor editor, string path, ulong size)
    {
        if (editor.FirstMapped(size) is { } at)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {path} is not resized: there is data at byte {at}, behind the new end; discard it first")
            { Path = path, Offset = (long)at };
        }
    }

    // Old entries behind the end, the rest of the last cluster and a longer backing file must not be seen now.
    private static void ZeroNewPart(IImageFile file, Qcow2Header header, Qcow2Editor editor, ulong size)
    {
        Qcow2Geometry image = header.Geometry;
        ulong old = header.DiskSize, start = old - image.InCluster(old), next = image.ClustersFor(old) << image.ClusterBits;
        editor.ClearFrom(next);
        using ImageChain chain = ImageChain.OpenOver(file);
        ulong backing = chain.Layers.Count > 1 ? chain.Layers[1].Size : 0;
        if (start != old && (editor.Get(start).KindIn(image) != ClusterKind.Unallocated || backing > old))
        {
            byte[] cluster = new byte[image.ClusterSize];
            chain.Read(cluster.AsSpan(0, (int)(old - start)), start);
            editor.Set(start, L2Entry.Data(image, editor.Append(cluster)));
        }

        editor.Resize(size);
        ulong seen = Math.Min(size, backing);
        if (seen > next && header.Version < 3)
        {
            throw new BlockException(
                BlockErrorKind.BadSize,
                $"disk {file.Path} is not resized: its backing file is longer, and an image of version 2 cannot hide that; convert it")
            { Path = file.Path };
        }

        for (ulong at = next; at < seen; at += image.ClusterSize)
        {
            editor.Set(at, L2Entry.PlainZero(image));
        }
    }
}
