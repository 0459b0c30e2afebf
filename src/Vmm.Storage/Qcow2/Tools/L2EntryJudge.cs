namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What is wrong with an L2 entry by itself, without a look at refcounts (qcow2.rst, "Cluster mapping").</summary>
internal static class L2EntryJudge
{
    /// <summary>Reports all of it; one report for each thing that is wrong.</summary>
    internal static void Judge(L2Entry entry, Qcow2Geometry image, ulong place, CheckReport report, uint times)
    {
        bool said = false;
        void Say(CheckFindingKind kind, string text)
        {
            report.Add(kind, place, $"L2 entry at {place} (0x{entry.Bits:x16}) {text}", times);
            said = true;
        }

        if (entry.IsCompressed)
        {
            if (entry.IsCopied)
            {
                Say(CheckFindingKind.CopiedFlag, "is compressed and has the flag of refcount 1");
            }

            if (entry.Bitmap != 0)
            {
                Say(CheckFindingKind.ReservedBits, "is compressed and has a bitmap of subclusters");
            }

            return;
        }

        if ((entry.Bits & L2Entry.AlwaysReserved) != 0)
        {
            Say(CheckFindingKind.ReservedBits, "has reserved bits set");
        }

        if (entry.HostOffset != 0 && (entry.Allocated & entry.Zeros) != 0)
        {
            Say(CheckFindingKind.SubclusterBitmap, "has subclusters that are payload and zeros at once");
        }

        if (entry.HostOffset == 0 && entry.Allocated != 0)
        {
            Say(CheckFindingKind.SubclusterBitmap, "has subclusters with payload and no cluster");
        }

        if (!image.IsAligned(entry.HostOffset))
        {
            Say(CheckFindingKind.Unaligned, "points into a cluster");
        }

        if (!said && entry.KindIn(image) == ClusterKind.Invalid)
        {
            Say(CheckFindingKind.ImpossibleEntry, "is not allowed by the format");
        }
    }
}
