using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What a repair mends.</summary>
public enum RepairMode
{
    /// <summary>Only frees what is counted and not used.</summary>
    Leaks,

    /// <summary>Also refcounts that are too small, the refcount structure itself, and the flags that depend on refcounts.</summary>
    All,
}

/// <summary>An image before and after its repair.</summary>
/// <param name="Before">What was found.</param>
/// <param name="After">What is left.</param>
/// <param name="Rebuilt">All refcounts were written anew, in clusters that were free.</param>
public sealed record RepairResult(CheckReport Before, CheckReport After, bool Rebuilt)
{
    /// <summary>Leaks that are gone.</summary>
    public ulong LeaksMended => Before.Leaks - Math.Min(Before.Leaks, After.Leaks);

    /// <summary>Other findings that are gone.</summary>
    public ulong CorruptionsMended => Before.Corruptions - Math.Min(Before.Corruptions, After.Corruptions);
}

/// <summary>
/// Mends refcounts by what the tables say. Entries of the tables stay as they are, but for the flag of refcount 1: nothing that is mapped
/// is lost. While an entry is damaged nothing is freed: what looks like a leak may be what it mapped. While one leads out of the file the
/// file does not grow, so that nothing else comes to lie there.
/// </summary>
public static class Qcow2Repair
{
    /// <summary>Mends an image that was opened for writing, and checks it again.</summary>
    /// <exception cref="BlockException">It is no image, or the host failed.</exception>
    public static RepairResult Run(IImageFile file, RepairMode mode, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        Qcow2Header header = ImageFiles.ReadHeader(file);
        CheckReport before = Qcow2Check.Run(file, header, progress), after = before;
        bool rebuilt = false;
        if (!before.IsClean)
        {
            Qcow2Walk walk = new(file, header, new CheckReport(), progress);
            walk.CountUsers();
            walk.CountRefcounts();
            walk.FindOverlaps();
            if (!walk.Overlaps.Contains(0)) // else every change of the header would change the disk
            {
                (header, rebuilt) = MendRefcounts(file, header, before, walk, mode, progress);
                MendFlags(file, header, walk, mode, progress);
            }

            file.Flush();
            after = Qcow2Check.Run(file, header, progress);
        }

        const Qcow2Incompatible Marks = Qcow2Incompatible.Dirty | Qcow2Incompatible.Corrupt;
        if (after.Corruptions == 0 && (header.Incompatible & Marks) != 0)
        {
            HeaderPatch.Write(file, header with { Incompatible = header.Incompatible & ~Marks });
            file.Flush();
        }

        return new RepairResult(before, after, rebuilt);
    }

    private static (Qcow2Header Header, bool Rebuilt) MendRefcounts(
        IImageFile file, Qcow2Header header, CheckReport report, Qcow2Walk walk, RepairMode mode, ToolProgress progress)
    {
        StoredRefcounts stored = new(file, header);
        bool needsRebuild = report.NeedsRebuild || walk.Counts.Used().Any(c => stored.BlockOf(c) == 0);
        if (mode == RepairMode.All && needsRebuild && !walk.LeadsOutside)
        {
            Action<ClusterCounts>? keep = report.HasDamagedEntries ? counts => Keep(file, counts, stored) : null;
            return (TableSwitch.Commit(file, header, keep, progress), true);
        }

        if (report.NeedsRebuild || (mode == RepairMode.All && needsRebuild))
        {
            return (header, false); // blocks that lie or are missing: nothing can be written into them
        }

        if (mode == RepairMode.All)
        {
            foreach (ulong cluster in walk.Counts.Used())
            {
                ulong should = Math.Min(walk.Counts[cluster], header.Geometry.MaxRefcount);
                if (stored.Get(cluster) < should)
                {
                    stored.Set(cluster, should);
                }
            }

            file.Flush();
        }

        if (!report.HasDamagedEntries)
        {
            FreeLeaks(file, walk.Counts, stored, header.Geometry, progress);
        }

        return (header, false);
    }

    private static void FreeLeaks(
        IImageFile file, ClusterCounts counts, StoredRefcounts stored, Qcow2Geometry image, ToolProgress progress)
    {
        ulong end = image.ClustersFor(file.Length);
        foreach ((ulong first, ulong number) in Qcow2Check.Pieces(end, counts, stored, progress))
        {
            for (ulong cluster = first; cluster < first + number; cluster++)
            {
                if (stored.Get(cluster) > counts[cluster])
                {
                    stored.Set(cluster, counts[cluster]);
                }
            }
        }
    }

    // What was counted stays counted.
    private static void Keep(IImageFile file, ClusterCounts counts, StoredRefcounts stored)
    {
        ulong end = stored.Geometry.ClustersFor(file.Length);
        foreach ((ulong first, ulong number) in Qcow2Check.Pieces(end, counts, stored, ToolProgress.None))
        {
            for (ulong cluster = first; cluster < first + number; cluster++)
            {
                if (counts[cluster] == 0 && stored.Get(cluster) > 0)
                {
                    counts.Add(cluster);
                }
            }
        }
    }

    // Where a table lies over payload its flags stay as they are: they are payload, too. A table that leads out of the file may.
    private static void MendFlags(IImageFile file, Qcow2Header header, Qcow2Walk walk, RepairMode mode, ToolProgress progress)
    {
        if (mode != RepairMode.All || walk.LeadsOutside)
        {
            return;
        }

        byte[] entry = new byte[8];
        CopiedFlags.Check(file, header, walk, new StoredRefcounts(file, header), progress, (place, bits, should) =>
        {
            if (walk.Overlaps.Contains(header.Geometry.ClusterOf(place)))
            {
                return;
            }

            BinaryPrimitives.WriteUInt64BigEndian(entry, new L2Entry(bits).WithCopied(should).Bits); // the same bit as in L1 entries
            file.Write(entry, place);
        });
    }
}
