using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

[Collection(Scratch.Alone)]
public sealed class Qcow2RepairTests
{
    /// <summary>
    /// Damages of refcounts only: afterwards both tools find nothing, and the disk has every byte it had. Of other damages what can be
    /// mended is, and no byte that could be read before is another one after.
    /// </summary>
    [QemuTheory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void After_a_repair_qemu_finds_nothing_and_the_disk_is_the_same(int kind)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["sound"], kind);
        int mended = 0, left = 0;
        for (int i = 0; i < 60; i++)
        {
            File.Copy(scratch["sound"], scratch["image"], overwrite: true);
            string what = Damage.Apply(scratch["image"], new Random((kind * 7919) + i));
            string before = DiskContent.Hash(scratch["image"]);
            RepairResult result = Repair(scratch["image"], RepairMode.All);
            Assert.Equal(before, DiskContent.Hash(scratch["image"]));
            (int code, ulong corruptions, ulong leaks, string output) = QemuImg.Check(scratch["image"]);
            bool isDamaged = result.Before.HasDamagedEntries || result.Before.Findings.Any(IsBeyondRepair);
            Assert.True(
                (isDamaged || result.After.IsClean) && (!result.After.IsClean || code == 0),
                $"{i} {what}: qemu {code} {corruptions} {leaks}, left {string.Join('\n', result.After.Findings.Take(5))}\n{output}");
            mended += !isDamaged && !result.Before.IsClean ? 1 : 0;
            left += isDamaged ? 1 : 0;
        }

        Assert.True(mended >= 10 && left >= 3, $"{mended} mended, {left} left");
    }

    [QemuFact]
    public void Leaks_are_freed_alone_when_only_leaks_are_to_be_mended()
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["image"], 0);
        Poke(scratch["image"], (file, header, counts) =>
        {
            counts.Set(header.Geometry.ClusterOf(header.L1Offset), 0);
            counts.Set((header.Geometry.ClustersFor(file.Length)) + 3, 2);
            file.Grow((header.Geometry.ClustersFor(file.Length) + 5) << header.Geometry.ClusterBits);
        });
        RepairResult result = Repair(scratch["image"], RepairMode.Leaks);
        Assert.Equal((1ul, 1ul), (result.Before.Corruptions, result.Before.Leaks));
        Assert.Equal((1ul, 0ul), (result.After.Corruptions, result.After.Leaks));
        Assert.Equal(2, QemuImg.Check(scratch["image"]).ExitCode);
    }

    [QemuFact]
    public void A_refcount_table_that_is_zeros_is_written_anew_and_the_dirty_mark_goes()
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["image"], 4);
        string before = DiskContent.Hash(scratch["image"]);
        Poke(scratch["image"], (file, header, _) =>
        {
            file.Write(new byte[header.RefcountTableClusters << header.Geometry.ClusterBits], header.RefcountTableOffset);
            HeaderPatch.Write(file, header with { Incompatible = header.Incompatible | Qcow2Incompatible.Dirty });
        });
        Assert.True(Repair(scratch["image"], RepairMode.All) is { Rebuilt: true, After.IsClean: true });
        Assert.Equal(0, QemuImg.Check(scratch["image"]).ExitCode);
        Assert.Equal(before, DiskContent.Hash(scratch["image"]));
        using RawImageFile file = ImageFiles.Open(scratch["image"], writable: false);
        Assert.Equal(Qcow2Incompatible.None, Qcow2Info.Read(file).Header.Incompatible & Qcow2Incompatible.Dirty);
    }

    [QemuFact]
    public void While_an_entry_is_damaged_nothing_is_freed()
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["image"], 0);
        Poke(scratch["image"], (file, header, _) => file.Write([0, 0, 0, 0, 0, 0, 2, 0], header.L1Offset)); // not at a cluster
        RepairResult result = Repair(scratch["image"], RepairMode.All);
        Assert.True(result.Before.Leaks > 5 && result.After.Leaks >= result.Before.Leaks, $"{result.Before.Leaks} {result.After.Leaks}");
    }

    private static bool IsBeyondRepair(CheckFinding finding) =>
        finding.Kind == CheckFindingKind.RefcountOverflow
        || (finding.Kind == CheckFindingKind.CopiedFlag && finding.Text.Contains("compressed", StringComparison.Ordinal));

    private static RepairResult Repair(string path, RepairMode mode)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: true);
        return Qcow2Repair.Run(file, mode);
    }

    private static void Poke(string path, Action<RawImageFile, Qcow2Header, StoredRefcounts> change)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: true);
        Qcow2Header header = ImageFiles.ReadHeader(file);
        change(file, header, new StoredRefcounts(file, header));
    }
}
