namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// The flag of active L1 and L2 entries that says: this cluster has refcount 1 and may be written in place (qcow2.rst, bit 63).
/// </summary>
internal static class CopiedFlags
{
    /// <summary>Calls back for every entry whose flag does not fit to the refcount in the image.</summary>
    /// <param name="file">The image.</param>
    /// <param name="header">Its header.</param>
    /// <param name="walk">What walked its tables.</param>
    /// <param name="stored">The refcounts in the image.</param>
    /// <param name="progress">One step for each L2 table.</param>
    /// <param name="wrong">Gets the place of the entry, its first eight bytes, and whether the flag should be set.</param>
    internal static void Check(
        IImageFile file,
        Qcow2Header header,
        Qcow2Walk walk,
        StoredRefcounts stored,
        ToolProgress progress,
        Action<ulong, ulong, bool> wrong)
    {
        Qcow2Geometry image = header.Geometry;
        foreach ((uint index, ulong bits) in TableSlices.NonZero(file, header.L1Offset, header.L1Size, progress))
        {
            L1Entry entry = new(bits);
            bool isOne = stored.Get(image.ClusterOf(entry.L2Offset)) == 1;
            if (entry.L2Offset != 0 && isOne != entry.IsCopied)
            {
                wrong(header.L1Offset + (index * 8ul), bits, isOne);
            }
        }

        (ulong Offset, uint Times)[] tables = [.. walk.ActiveL2];
        byte[] table = new byte[image.ClusterSize];
        progress.Begin((ulong)tables.Length);
        foreach ((ulong offset, uint times) in tables)
        {
            file.Read(table, offset);
            for (int at = 0; at < table.Length; at += image.L2EntrySize)
            {
                L2Entry entry = L2EntryBytes.Read(table, at, image);
                bool isOne = !entry.IsCompressed && entry.HostOffset != 0 && stored.Get(image.ClusterOf(entry.HostOffset)) == 1;
                if (!entry.IsCompressed && entry.HostOffset != 0 && isOne != entry.IsCopied)
                {
                    wrong(offset + (uint)at, entry.Bits, isOne);
                }
            }

            progress.Advance(1);
        }
    }
}
