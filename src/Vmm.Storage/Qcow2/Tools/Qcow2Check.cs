namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Finds what is wrong with the metadata of an image: leaks, refcounts that are too small, flags that do not fit to them, entries that are
/// not allowed or lead out of the file. Changes nothing.
/// </summary>
public static class Qcow2Check
{
    /// <summary>Checks an image. Only what is in its header can make that impossible.</summary>
    /// <exception cref="BlockException">It is no image, or not one that this program can read; or the host failed.</exception>
    public static CheckReport Run(IImageFile file, ToolProgress? progress = null) =>
        Run(file, ImageFiles.ReadHeader(file), progress ?? ToolProgress.None);

    internal static CheckReport Run(IImageFile file, Qcow2Header header, ToolProgress progress)
    {
        CheckReport report = new() { TotalClusters = header.Geometry.ClustersFor(header.DiskSize) };
        Qcow2Walk walk = new(file, header, report, progress);
        walk.CountUsers();
        walk.CountRefcounts();
        walk.FindOverlaps();
        StoredRefcounts stored = new(file, header);
        CompareRefcounts(header.Geometry, file, walk.Counts, stored, report, progress);
        CopiedFlags.Check(file, header, walk, stored, progress, (place, bits, should) => report.Add(
            CheckFindingKind.CopiedFlag,
            place,
            $"the entry at {place} (0x{bits:x16}) {(should ? "lacks the flag of refcount 1" : "has the flag of refcount 1 wrongly")}"));
        return report;
    }

    private static void CompareRefcounts(
        Qcow2Geometry image, IImageFile file, ClusterCounts counts, StoredRefcounts stored, CheckReport report, ToolProgress progress)
    {
        ulong end = Math.Max(image.ClustersFor(file.Length), counts.End), last = 0;
        progress.Begin(end);
        foreach ((ulong first, ulong number) in Pieces(end, counts, stored, progress))
        {
            for (ulong cluster = first; cluster < first + number; cluster++)
            {
                ulong has = stored.Get(cluster), should = Math.Min(counts[cluster], image.MaxRefcount);
                last = has > 0 || should > 0 ? cluster : last;
                if (has == should)
                {
                    continue;
                }

                ulong place = cluster << image.ClusterBits;
                report.Add(
                    has > should ? CheckFindingKind.Leak : CheckFindingKind.RefcountTooSmall,
                    place,
                    $"the cluster at {place} has refcount {has} and is used {counts[cluster]} times");
            }
        }

        report.EndOffset = (last + 1) << image.ClusterBits;
    }

    /// <summary>The clusters, in pieces, where something may be used or counted.</summary>
    internal static IEnumerable<(ulong First, ulong Number)> Pieces(
        ulong end, ClusterCounts counts, StoredRefcounts stored, ToolProgress progress)
    {
        for (ulong at = 0; at < end; at += stored.PieceClusters)
        {
            ulong number = Math.Min(stored.PieceClusters, end - at);
            if (counts.MayUseAny(at, number) || !stored.IsPieceEmpty(at))
            {
                yield return (at, number);
            }

            progress.Advance(number);
        }
    }
}
