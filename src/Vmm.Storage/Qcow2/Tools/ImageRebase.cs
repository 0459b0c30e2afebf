namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Puts an image onto another backing file.</summary>
public static class ImageRebase
{
    /// <summary>Only changes the name: the caller knows that the new file has what the old one had.</summary>
    /// <param name="path">The image.</param>
    /// <param name="backing">The new name as the image shall give it; null: none.</param>
    /// <param name="format">Its format; goes with every name.</param>
    /// <exception cref="BlockException">The image cannot be written, or its header has no room.</exception>
    public static void Rename(string path, string? backing, string? format)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: true);
        BackingName.Write(file, backing, backing is null ? null : format);
    }

    /// <summary>
    /// Copies into the image what it sees through the old backing file and would not see through the new one, then changes the name. The
    /// disk has the same content before and after, also when this is cut off.
    /// </summary>
    /// <inheritdoc cref="Rename"/>
    public static void Run(string path, string? backing, string? format, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        using RawImageFile file = ImageFiles.Open(path, writable: true);
        Qcow2Header header = ImageFiles.ReadHeader(file);
        string folder = Path.GetDirectoryName(Path.GetFullPath(path)) ?? "/";
        using ImageChain? old = OpenBacking(path, folder, header.BackingFile, header.BackingFormat);
        using ImageChain? next = OpenBacking(path, folder, backing, format);
        Qcow2Editor editor = new(file, header, progress);
        if (CopyDifferences(file, header, editor, old, next, progress))
        {
            _ = editor.Commit(progress);
        }

        BackingName.Write(file, backing, backing is null ? null : format);
    }

    private static ImageChain? OpenBacking(string path, string folder, string? name, string? format)
    {
        if (name is null)
        {
            return null;
        }

        return format is null
            ? throw new BlockException(
                BlockErrorKind.NotADisk, $"disk {path}: the format of its backing file {name} is not said, and it is not guessed")
            { Path = path }
            : ImageChain.Open(Path.Combine(folder, name), format);
    }

    private static bool CopyDifferences(
        IImageFile file, Qcow2Header header, Qcow2Editor editor, ImageChain? old, ImageChain? next, ToolProgress progress)
    {
        Qcow2Geometry image = header.Geometry;
        byte[] was = new byte[image.ClusterSize], becomes = new byte[image.ClusterSize], own = new byte[image.ClusterSize];
        bool changed = false;
        progress.Begin(header.DiskSize);
        for (ulong at = 0; at < header.DiskSize; at += image.ClusterSize)
        {
            progress.Advance(image.ClusterSize);
            uint unseen = Unseen(editor.Get(at), image);
            if (unseen == 0 || (IsEmpty(old, at, image.ClusterSize) && IsEmpty(next, at, image.ClusterSize)))
            {
                continue;
            }

            Read(old, was, at, header.DiskSize);
            Read(next, becomes, at, header.DiskSize);
            uint differs = 0;
            int part = 1 << image.SubclusterBits;
            for (int i = 0; i < image.Subclusters; i++)
            {
                bool same = was.AsSpan(i * part, part).SequenceEqual(becomes.AsSpan(i * part, part));
                differs |= same ? 0 : unseen & (1u << i);
            }

            if (differs != 0)
            {
                editor.Set(at, Merge(file, editor, editor.Get(at), image, was, own, differs));
                changed = true;
            }
        }

        return changed;
    }

    // Parts of the cluster that are seen through to the backing file.
    private static uint Unseen(L2Entry entry, Qcow2Geometry image) => entry.KindIn(image) switch
    {
        ClusterKind.Unallocated => image.ExtendedL2 ? uint.MaxValue : 1,
        ClusterKind.Data or ClusterKind.Zero when image.ExtendedL2 => ~(entry.Allocated | entry.Zeros),
        _ => 0,
    };

    // A new cluster with the parts that are there and those that are to be copied.
    private static L2Entry Merge(
        IImageFile file, Qcow2Editor editor, L2Entry entry, Qcow2Geometry image, byte[] was, byte[] own, uint differs)
    {
        if (!image.ExtendedL2)
        {
            return L2Entry.Data(image, editor.Append(was));
        }

        Array.Clear(own);
        if (entry.HostOffset != 0)
        {
            file.Read(own, entry.HostOffset);
        }

        int part = 1 << image.SubclusterBits;
        for (int i = 0; i < image.Subclusters; i++)
        {
            if ((differs & (1u << i)) != 0)
            {
                was.AsSpan(i * part, part).CopyTo(own.AsSpan(i * part));
            }
        }

        return L2Entry.Parts(editor.Append(own), entry.Allocated | differs, entry.Zeros);
    }

    private static bool IsEmpty(ImageChain? chain, ulong at, ulong length)
    {
        if (chain is null || at >= chain.Size)
        {
            return true;
        }

        ulong whole = Math.Min(length, chain.Size - at);
        DiskExtent extent = chain.Map(at, whole);
        return extent.Kind is DiskExtentKind.Unallocated or DiskExtentKind.Zero && extent.Length == whole;
    }

    private static void Read(ImageChain? chain, byte[] cluster, ulong at, ulong diskSize)
    {
        ulong end = Math.Min(diskSize, chain?.Size ?? 0);
        int take = at >= end ? 0 : (int)Math.Min((ulong)cluster.Length, end - at);
        chain?.Read(cluster.AsSpan(0, take), at);
        cluster.AsSpan(take).Clear();
    }
}
