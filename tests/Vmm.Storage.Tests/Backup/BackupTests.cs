using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Backup;

/// <summary>Points of a backup: what was there comes back, and nothing else does.</summary>
[Collection(Scratch.Alone)]
public sealed class BackupTests
{
    private const int Extent = BackupRig.Extent;

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, 12)];

    /// <summary>Writes, zeros and growth of two disks, points between them, some pruned: each point is what the disks were then.</summary>
    [Theory]
    [MemberData(nameof(Seeds))]
    public void A_random_history_comes_back_byte_for_byte(int seed)
    {
        Random random = new(seed);
        using BackupRig rig = new((40 * Extent) + 1536, 9 * Extent);
        int first = 1;
        for (int step = 0; step < 60; step++)
        {
            int which = random.Next(2);
            byte[] disk = rig.Disks[which];
            int at = random.Next(disk.Length), length = Math.Min(disk.Length - at, 1 << random.Next(1, 19));
            switch (random.Next(10))
            {
                case < 4:
                    random.NextBytes(disk.AsSpan(at, length));
                    break;
                case < 6:
                    disk.AsSpan(at, length).Fill((byte)random.Next(256));
                    break;
                case < 8:
                    disk.AsSpan(at, length).Clear();
                    break;
                case 8 when disk.Length < 80 * Extent:
                    Array.Resize(ref disk, disk.Length + (512 * random.Next(1, 300)));
                    rig.Disks[which] = disk;
                    break;
                default:
                    _ = rig.Backup(full: random.Next(10) == 0);
                    break;
            }
        }

        _ = rig.Backup();
        if (seed % 3 == 0)
        {
            int keep = random.Next(1, rig.History.Count + 1);
            Assert.Equal(rig.History.Count - keep, BackupPruner.Run(rig.Folder, keep));
            first = rig.History.Count - keep + 1;
            rig.Disks[0][0] ^= 1;
            _ = rig.Backup();
            Assert.NotNull(rig.Points.Require(null).Point!.Disks[0].Parent); // the chain goes on over what was pruned
        }

        Assert.Equal(Enumerable.Range(first, rig.History.Count - first + 1), rig.Points.Points.Select(point => point.Number));
        for (int number = first; number <= rig.History.Count; number++)
        {
            rig.AssertPoint(number);
        }
    }

    [Fact]
    public void Only_what_changed_is_stored_and_the_point_says_why_it_has_all()
    {
        using BackupRig rig = new(100 * Extent);
        new Random(1).NextBytes(rig.Disks[0].AsSpan(0, 50 * Extent));
        BackupDisk first = rig.Backup().Point!.Disks[0];
        Assert.Equal((50ul, null, "it is the first backup"), (first.Extents, first.Parent, first.Why));
        rig.Disks[0][(7 * Extent) + 5] ^= 1;
        rig.Disks[0].AsSpan(20 * Extent, 2 * Extent).Clear();
        BackupDisk second = rig.Backup().Point!.Disks[0];
        Assert.Equal((3ul, rig.Points.Require(1).Point!.Id, null), (second.Extents, second.Parent, second.Why));
        Assert.InRange(second.Stored, (ulong)Extent, (ulong)Extent + 1024);
        Assert.Equal(0ul, rig.Backup().Point!.Disks[0].Extents);
        Assert.Equal("it was asked for", rig.Backup(full: true).Point!.Disks[0].Why);
        rig.Disks[0] = rig.Disks[0][..(60 * Extent)];
        Assert.Equal("the disk is smaller than at point 4", rig.Backup().Point!.Disks[0].Why);
        rig.Disks.Add(new byte[Extent]);
        BackupPoint last = rig.Backup().Point!;
        Assert.Equal([null, "point 5 does not have the disk"], last.Disks.Select(disk => disk.Why));
        Array.ForEach([1, 2, 3, 4, 5, 6], rig.AssertPoint);
    }

    [QemuFact]
    public void Qemu_takes_a_restored_image_for_the_disk_that_it_was()
    {
        using BackupRig rig = new((30 * Extent) + 512);
        new Random(3).NextBytes(rig.Disks[0].AsSpan(3 * Extent, 20 * Extent));
        rig.Save(0);
        string overlay = rig["over.qcow2"], target = rig["back.qcow2"];
        ImageSnapshot.Take(rig.PathOf(0), ImageFormat.Raw, overlay);
        BackupSource[] source = [new("disk0", overlay, "qcow2")];
        _ = BackupCreator.Run(source, rig.Wish());
        _ = QemuImg.Do("bench", "-w", "-c", "40", "-s", "4096", "-S", "69632", "-f", "qcow2", "--pattern", "7", overlay);
        StoredPoint point = BackupCreator.Run(source, rig.Wish());
        Assert.NotNull(point.Point!.Disks[0].Parent);
        BackupRestorer.Restore(rig.Points, point, "disk0", target, "qcow2");
        Assert.Contains("identical", QemuImg.Do("compare", "-f", "qcow2", "-F", "qcow2", overlay, target), StringComparison.Ordinal);
        Assert.Equal((0, 0ul, 0ul), QemuImg.Check(target) is var (code, corruptions, leaks, _) ? (code, corruptions, leaks) : default);
        Assert.Throws<BlockException>(() => BackupRestorer.Restore(rig.Points, point, "disk0", target, "qcow2")); // it is there already
    }

    /// <summary>A backup is cancelled, or its daemon is killed, anywhere: the folder has its old points.</summary>
    [Fact]
    public void What_ends_amid_a_backup_leaves_the_old_points_and_nothing_half()
    {
        using BackupRig rig = new(20 * Extent, 4 * Extent);
        new Random(5).NextBytes(rig.Disks[0]);
        _ = rig.Backup();
        for (int steps = 0; steps < 20; steps++)
        {
            int left = steps;
            using CancellationTokenSource cancel = new();
            rig.Disks[0][steps * 1000] ^= 1;
            ToolProgress progress = new(_ => left = left-- == 0 ? Cancel(cancel) : left, cancel.Token);
            Assert.Throws<OperationCanceledException>(() => rig.Backup(progress: progress));
            Assert.Equal(["000001"], Directory.GetDirectories(rig.Folder).Select(Path.GetFileName));
        }

        string died = Directory.CreateDirectory(Path.Combine(rig.Folder, ".part-000002")).FullName;
        File.WriteAllText(Path.Combine(died, "disk0.delta"), "half");
        Assert.Single(rig.Points.Points);
        _ = rig.Backup();
        Assert.False(Directory.Exists(died));
        rig.AssertPoint(2);
    }

    [Fact]
    public void A_folder_is_of_one_vm_and_of_one_writer()
    {
        using BackupRig rig = new(Extent);
        _ = rig.Backup();
        BlockException refused = Assert.Throws<BlockException>(() => rig.Backup(owner: "other"));
        Assert.Contains("has backups of another one, vm", refused.Message, StringComparison.Ordinal);
        using (BackupFolder.Lock(rig.Folder))
        {
            refused = Assert.Throws<BlockException>(() => rig.Backup());
            Assert.Equal(BlockErrorKind.InUse, refused.Kind);
            Assert.Single(rig.Points.Points); // it can be read
        }

        using (ImageFiles.Open(rig.PathOf(0), writable: true))
        {
            Assert.Equal(BlockErrorKind.InUse, Assert.Throws<BlockException>(() => BackupCreator.Run(rig.Sources(), rig.Wish())).Kind);
        }
    }

    private static int Cancel(CancellationTokenSource cancel)
    {
        cancel.Cancel();
        return -1;
    }
}
