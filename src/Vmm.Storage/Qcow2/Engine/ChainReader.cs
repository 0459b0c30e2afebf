namespace Vmm.Storage.Qcow2;

/// <summary>Reads the headers and L1 tables of a chain, and refuses what cannot be used, by name.</summary>
internal static class ChainReader
{
    /// <summary>A header is in so many bytes, with its extensions and the name of the backing file.</summary>
    internal const int HeaderBytes = 64 * 1024;

    internal static Chain Read(IReadOnlyList<ImageLayer> layers, int cacheBytes)
    {
        if (layers.Count == 0 || layers[0].Format != ImageFormat.Qcow2 || layers.SkipLast(1).Any(layer => layer.Format == ImageFormat.Raw))
        {
            throw new ArgumentException("A chain begins with a qcow2 image; only the last image may be raw.", nameof(layers));
        }

        ChainLayer[] read = new ChainLayer[layers.Count];
        for (int i = 0; i < read.Length; i++)
        {
            IImageFile file = layers[i].File;
            read[i] = layers[i].Format == ImageFormat.Raw
                ? new ChainLayer(file, file.Length / 512 * 512, null, null)
                : ReadImage(file, i, isLast: i == read.Length - 1);
        }

        return new Chain(read, new L2Cache(cacheBytes));
    }

    private static ChainLayer ReadImage(IImageFile file, int layer, bool isLast)
    {
        byte[] bytes = new byte[(int)Math.Min(HeaderBytes, Math.Max(file.Length, 1))];
        file.Read(bytes, 0);
        Qcow2Header header = Qcow2Header.Parse(bytes, file.Path);
        if (isLast && header.BackingFile is { } backing)
        {
            throw Error(file, $"stands on {backing}, which was not opened");
        }

        if (layer == 0 && file.IsWritable)
        {
            CheckWritable(file, header);
            if (header.Autoclear != 0)
            {
                ImageHeader.ClearAutoclear(file);
            }
        }

        ulong l1End = header.L1Offset + (header.L1Size * 8ul);
        if (l1End > ((file.Length + header.Geometry.ClusterSize - 1) & ~(header.Geometry.ClusterSize - 1ul)))
        {
            throw Error(file, $"is cut off: its L1 table ends at byte {l1End}, the file at {file.Length}");
        }

        ulong[] l1 = TableBytes.Read(file, header.L1Offset, (int)header.L1Size);
        return new ChainLayer(file, header.DiskSize, new ImageTables(layer, header, l1), header);
    }

    private static void CheckWritable(IImageFile file, Qcow2Header header)
    {
        string check = $"run: vmmctl disk check --repair {file.Path}";
        if ((header.Incompatible & Qcow2Incompatible.Corrupt) != 0)
        {
            throw Error(file, $"is marked as damaged and can only be read; {check}");
        }

        if ((header.Incompatible & Qcow2Incompatible.Dirty) != 0)
        {
            throw Error(file, $"was not closed by its last writer, and its refcounts may be wrong; {check}");
        }

        if (file.BlockBytes > header.Geometry.ClusterSize)
        {
            // A write of a table would write payload back that lies beside it in the block.
            throw Error(file, $"has clusters of {header.Geometry.ClusterSize} bytes, less than a block of its storage "
                + $"({file.BlockBytes}); use the page cache (cache: buffered), or larger clusters (vmmctl disk convert)");
        }

        if (header.Snapshots > 0)
        {
            throw Error(file, $"has {header.Snapshots} internal snapshots, beside which it is not written; delete them with qemu-img "
                + "snapshot -d, or make a differencing disk over it");
        }
    }

    private static BlockException Error(IImageFile file, string what) =>
        new(BlockErrorKind.NotADisk, $"disk {file.Path} {what}") { Path = file.Path };
}
