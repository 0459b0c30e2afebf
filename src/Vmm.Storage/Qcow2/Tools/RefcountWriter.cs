using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Writes a refcount table with its blocks into clusters that nothing uses yet (qcow2.rst, "Host cluster management").</summary>
internal static class RefcountWriter
{
    /// <summary>Writes them, counted themselves. Nothing refers to them before the header does.</summary>
    /// <param name="file">The image.</param>
    /// <param name="image">Its sizes.</param>
    /// <param name="counts">Uses of all clusters; gets those of the table and the blocks, too.</param>
    /// <param name="first">A cluster behind which nothing is used, and nothing of the file has to be kept.</param>
    /// <param name="progress">One step for each block.</param>
    /// <returns>Where the table lies, and its clusters.</returns>
    internal static (ulong Offset, uint Clusters) Write(
        IImageFile file, Qcow2Geometry image, ClusterCounts counts, ulong first, ToolProgress progress)
    {
        List<ulong> covered = Covered(image, counts);
        ulong tableClusters = 1;
        while (!IsEnough(image, covered, first, ref tableClusters))
        {
        }

        ulong end = first + tableClusters + (ulong)covered.Count;
        counts.AddRange(first, end - first);
        byte[] table = new byte[tableClusters << image.ClusterBits];
        byte[] block = new byte[image.ClusterSize];
        progress.Begin((ulong)covered.Count);
        for (int i = 0; i < covered.Count; i++)
        {
            ulong offset = (first + tableClusters + (ulong)i) << image.ClusterBits;
            Fill(block, image, counts, covered[i] << image.RefcountBlockBits);
            file.Write(block, offset);
            BinaryPrimitives.WriteUInt64BigEndian(table.AsSpan((int)covered[i] * 8), offset);
            progress.Advance(1);
        }

        file.Write(table, first << image.ClusterBits);
        return (first << image.ClusterBits, (uint)tableClusters);
    }

    // The blocks that cover what is used now.
    private static List<ulong> Covered(Qcow2Geometry image, ClusterCounts counts)
    {
        List<ulong> covered = [];
        foreach (ulong cluster in counts.Used())
        {
            ulong index = cluster >> image.RefcountBlockBits;
            if (covered.Count == 0 || covered[^1] != index)
            {
                covered.Add(index);
            }
        }

        return covered;
    }

    // Table and blocks are counted by blocks, too: adds those until all are covered. True when nothing had to be added.
    private static bool IsEnough(Qcow2Geometry image, List<ulong> covered, ulong first, ref ulong tableClusters)
    {
        ulong end = first + tableClusters + (ulong)covered.Count;
        ulong lastBlock = (end - 1) >> image.RefcountBlockBits;
        ulong entriesBits = (ulong)image.ClusterBits - 3;
        ulong needed = (Math.Max(lastBlock, covered.Count == 0 ? 0 : covered[^1]) >> (int)entriesBits) + 1;
        bool enough = needed <= tableClusters;
        tableClusters = Math.Max(tableClusters, needed);
        for (ulong index = first >> image.RefcountBlockBits; index <= lastBlock; index++)
        {
            if (covered.BinarySearch(index) is < 0 and int place)
            {
                covered.Insert(~place, index);
                enough = false;
            }
        }

        return enough;
    }

    private static void Fill(byte[] block, Qcow2Geometry image, ClusterCounts counts, ulong cluster)
    {
        Array.Clear(block);
        for (int i = 0; i < 1 << image.RefcountBlockBits; i++)
        {
            if (counts[cluster + (uint)i] is > 0 and uint count)
            {
                Refcounts.Set(block, i, image.RefcountOrder, Math.Min(count, image.MaxRefcount));
            }
        }
    }
}
