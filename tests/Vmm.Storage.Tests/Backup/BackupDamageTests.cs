using Vmm.Fuzz;
using Vmm.Storage.Backup;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Backup;

/// <summary>Files of a backup that are not what they were: found, and named.</summary>
[Collection(Scratch.Alone)]
public sealed class BackupDamageTests
{
    private const int Extent = BackupRig.Extent;

    [Fact]
    public void A_byte_that_changed_anywhere_is_found()
    {
        using BackupRig rig = new(3 * Extent);
        new Random(1).NextBytes(rig.Disks[0].AsSpan(0, Extent));
        rig.Disks[0].AsSpan(2 * Extent, 900).Fill(9);
        StoredPoint point = rig.Backup();
        string file = Path.Combine(point.Folder, "disk0.delta");
        byte[] sound = File.ReadAllBytes(file);
        for (int at = 0; at < sound.Length; at += at is > 600 and < Extent ? 977 : 1)
        {
            byte[] wrong = (byte[])sound.Clone();
            wrong[at] ^= 0x10;
            File.WriteAllBytes(file, wrong);
            BlockException found = Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, point, "disk0"));
            Assert.Contains(file, found.Message, StringComparison.Ordinal);
            if (at is >= 512 and < Extent)
            {
                Assert.Equal(0, found.Offset);
                Assert.Contains("extent 0 ", found.Message, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void A_file_that_was_cut_is_refused()
    {
        using BackupRig rig = new(2 * Extent);
        rig.Disks[0].AsSpan().Fill(3);
        StoredPoint point = rig.Backup();
        string file = Path.Combine(point.Folder, "disk0.delta");
        byte[] sound = File.ReadAllBytes(file);
        for (int length = 0; length < sound.Length; length++)
        {
            File.WriteAllBytes(file, sound[..length]);
            Assert.Equal(
                BlockErrorKind.Damaged,
                Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, point, "disk0")).Kind);
        }

        File.WriteAllBytes(file, [.. sound, 0]);
        _ = Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, point, "disk0"));
        File.Delete(file);
        Assert.Equal(
            BlockErrorKind.NotFound, Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, point, "disk0")).Kind);
    }

    /// <summary>Sound files in the wrong place: each is refused with what is wrong, and nothing is restored.</summary>
    [Fact]
    public void A_file_of_another_point_disk_vm_or_history_is_refused_by_name()
    {
        using BackupRig rig = new(4 * Extent, 4 * Extent), other = new(4 * Extent, 4 * Extent);
        for (int i = 1; i <= 3; i++)
        {
            rig.Disks[0].AsSpan((i - 1) * Extent, Extent).Fill((byte)i);
            rig.Disks[1][0] = (byte)i;
            other.Disks[0][5] = (byte)i;
            _ = rig.Backup();
            _ = other.Backup(owner: "other");
        }

        Refused(FileOf(rig, 1, "disk0"), FileOf(rig, 2, "disk0"), "it is of another point");
        Refused(FileOf(rig, 2, "disk1"), FileOf(rig, 2, "disk0"), "it is of disk disk1");
        Refused(FileOf(other, 2, "disk0"), FileOf(rig, 2, "disk0"), "it is of another VM");
        string gone = Path.Combine(rig.Folder, "000002"), kept = rig["kept"];
        Directory.Move(gone, kept); // out of order: the one between is missing
        BlockException missing = Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, rig.Points.Require(3), "disk0"));
        Assert.Contains("point 3 stands on the point", missing.Message, StringComparison.Ordinal);
        string? all = rig.Backup().Point!.Disks[0].Why; // the next one has all, and says so
        Assert.Contains("point 3 stands on the point", all, StringComparison.Ordinal);
        Directory.Move(kept, gone);
        rig.AssertPoint(3);
        rig.AssertPoint(4);

        void Refused(string from, string over, string why)
        {
            byte[] own = File.ReadAllBytes(over);
            File.Copy(from, over, overwrite: true);
            BlockException refused = Assert.Throws<BlockException>(
                () => BackupRestorer.Restore(rig.Points, rig.Points.Require(3), "disk0", rig["never"], "raw"));
            Assert.Contains(why, refused.Message, StringComparison.Ordinal);
            Assert.False(File.Exists(rig["never"]));
            File.WriteAllBytes(over, own);
        }
    }

    /// <summary>A delta that is sound in itself and was made anew on another content below.</summary>
    [Fact]
    public void A_parent_of_another_content_is_refused()
    {
        using BackupRig rig = new(2 * Extent);
        rig.Disks[0][0] = 1;
        StoredPoint first = rig.Backup();
        rig.Disks[0][Extent] = 1;
        _ = rig.Backup();
        string file = Path.Combine(first.Folder, "disk0.delta");
        BackupDisk disk = first.Point!.Disks[0];
        File.Delete(file);
        byte[] seal, content = new byte[Extent];
        content[0] = 2;
        using (DeltaWriter writer = new(file, new DeltaHeader
        {
            Disk = "disk0",
            DiskBytes = 2 * Extent,
            Owner = first.Point.Owner,
            Point = first.Point.Id,
        }))
        using (DiskTree tree = new(2 * Extent))
        {
            byte[] leaf = System.Security.Cryptography.SHA256.HashData(content);
            writer.Add(0, content, leaf);
            tree.Add(0, leaf);
            seal = writer.Finish(tree.Finish());
        }

        BackupFolder.WritePoint(first.Folder, first.Point with { Disks = [disk with { Seal = Convert.ToHexString(seal) }] });
        BackupRestorer.Verify(rig.Points, rig.Points.Require(1), "disk0");
        BlockException refused = Assert.Throws<BlockException>(() => BackupRestorer.Verify(rig.Points, rig.Points.Require(2), "disk0"));
        Assert.Contains("stands on a disk of another content", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void The_target_of_the_fuzzer_finds_nothing_in_random_bytes()
    {
        int inputs = HostileImages.Number("VMM_FUZZ_ITERATIONS") ?? 600;
        byte[] delta = BackupTarget.Sealed([9, 0, 1, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        for (int seed = 0; seed < inputs; seed++)
        {
            Random random = new(seed);
            byte[] input = new byte[random.Next(300)];
            random.NextBytes(input);
            BackupTarget.Run(input);
            byte[] mutated = [0, .. delta];
            mutated[random.Next(1, mutated.Length)] ^= (byte)(1 << random.Next(8));
            BackupTarget.Run(mutated);
        }
    }

    private static string FileOf(BackupRig rig, int point, string disk) =>
        Path.Combine(rig.Points.Require(point).Folder, disk + ".delta");
}
