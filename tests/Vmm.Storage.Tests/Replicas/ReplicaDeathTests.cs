using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>
/// A death behind every step of either side: the files are copied there, and the copies are opened. What was acknowledged is there, and the
/// work can go on.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class ReplicaDeathTests
{
    private const int Extent = ReplicaRig.Extent;

    [Fact]
    public void A_death_while_a_point_is_arranged_leaves_it_whole_or_to_be_arranged_again()
    {
        using ReplicaRig rig = Two();
        rig.Write("disk0", 3 * Extent, 2 * Extent).Fill(9);
        rig.Disks["disk1"] = [.. rig.Disks["disk1"], .. new byte[7 * Extent]];
        SpooledPoint third = rig.Cut();
        Arrive(rig, third);
        List<string> copies = [];
        rig.Replica.AtStep = () => copies.Add(rig.Copy(rig.ReplicaPath, $"death-{copies.Count}"));
        _ = rig.Replica.Intake!.Seal();
        Assert.InRange(copies.Count, 8, 40);
        int whole = 0;
        foreach (string copy in copies)
        {
            using (ReplicaFolder replica = ReplicaFolder.Open(copy))
            {
                rig.AssertAll(replica);
                whole += replica.Points.Count - 2;
                if (replica.Points.Count == 2)
                {
                    _ = replica.Intake!.Seal();
                }

                Assert.Equal(third.Point.Id, replica.Newest!.Point.Id);
                Assert.Null(replica.BeginIntake(third.Point));
                rig.AssertAll(replica);
                AssertTrees(replica);
                Assert.Empty(Directory.GetDirectories(copy));
            }
        }

        Assert.InRange(whole, 2, copies.Count - 3);
    }

    [Theory]
    [InlineData(0)] // the oldest one, in place
    [InlineData(1)] // one between, written anew
    public void A_death_while_points_are_merged_changes_no_point_that_stays(int which)
    {
        using ReplicaRig rig = Two();
        for (int i = 0; i < 2; i++)
        {
            rig.Write("disk0", (i + 1) * 3 * Extent, 5 * Extent).Fill((byte)(100 + i));
            rig.Write("disk1", i * Extent, 100).Clear();
            _ = rig.CutAndSend();
        }

        Guid gone = rig.Replica.Points[which].Point.Id;
        List<string> copies = [];
        rig.Replica.AtStep = () => copies.Add(rig.Copy(rig.ReplicaPath, $"death-{copies.Count}"));
        Assert.Equal(1, rig.Replica.Merge([gone], []));
        rig.Replica.AtStep = null;
        rig.AssertAll();
        Assert.InRange(copies.Count, 6, 20);
        foreach (string copy in copies)
        {
            using ReplicaFolder replica = ReplicaFolder.Open(copy);
            Assert.Null(replica.Find(gone));
            Assert.Equal(3, replica.Points.Count);
            rig.AssertAll(replica);
            Assert.Equal(0, replica.Merge([], [])); // goes on with it
            Assert.False(File.Exists(Path.Combine(copy, ReplicaFiles.RecordOf(which + 1))));
            Assert.Equal(6, Directory.GetFiles(copy, "*.qcow2").Length);
            rig.AssertAll(replica);
            Assert.Equal(2, replica.Merge([.. replica.Points.Select(point => point.Point.Id)], []));
            rig.AssertAll(replica);
            Assert.Equal(2, Directory.GetFiles(copy, "*.qcow2").Length);
        }
    }

    /// <summary>A merge is cancelled anywhere: the next one goes on, and no point that stays changes.</summary>
    [Fact]
    public void What_ends_amid_a_merge_is_gone_on_with()
    {
        using ReplicaRig rig = Two();
        for (int steps = 0; steps < 12; steps++)
        {
            rig.Write("disk0", steps * Extent, 3 * Extent).Fill((byte)(steps + 50));
            _ = rig.CutAndSend();
            int left = steps / 2;
            using CancellationTokenSource cancel = new();
            ToolProgress progress = new(_ => left = left-- == 0 ? Cancel(cancel) : left, cancel.Token);
            try
            {
                _ = rig.Replica.Merge([rig.Replica.Points[steps % 2].Point.Id], [], progress);
            }
            catch (OperationCanceledException)
            {
            }

            if (steps % 3 == 0)
            {
                rig.ReopenReplica();
            }

            rig.AssertAll();
        }

        _ = rig.Replica.Merge([.. rig.Replica.Points.Select(point => point.Point.Id)], []);
        _ = rig.Replica.Merge([.. rig.Replica.Points.Select(point => point.Point.Id)], []);
        Assert.Single(rig.Replica.Points);
        Assert.Equal(2, Directory.GetFiles(rig.ReplicaPath, "*.qcow2").Length);
        rig.AssertAll();
    }

    [Fact]
    public void A_death_while_a_cut_is_made_leaves_a_point_or_none_and_the_next_one_stands_on_it()
    {
        using ReplicaRig rig = Two();
        rig.Write("disk0", 5 * Extent, 9 * Extent).Fill(77);
        Guid before = rig.Parent;
        List<(string Spool, string Trees)> copies = [];
        rig.Spool.AtStep = () => copies.Add(
            (rig.Copy(rig.SpoolPath, $"spool-{copies.Count}"), rig.Copy(rig.TreesPath, $"trees-{copies.Count}")));
        SpooledPoint third = rig.Cut();
        Assert.InRange(copies.Count, 8, 60);
        foreach ((string folder, string trees) in copies)
        {
            ReplicaSpool spool = ReplicaSpool.Open(folder, trees);
            Guid parent = spool.Points.Count == 0 ? before : third.Point.Id;
            Assert.All(rig.Disks.Keys, disk => Assert.Null(spool.WhyFull(disk, parent)));
            CutDisk[] disks = [.. rig.Disks.Keys.Select(disk => new CutDisk(disk, rig.Save(disk), "raw", ExtentSet.All("after a death")))];
            SpooledPoint next = CutMaker.Run(
                disks,
                new CutWish { Owner = ReplicaRig.Owner, Point = Guid.NewGuid(), Parent = parent, Time = DateTimeOffset.UnixEpoch },
                spool);
            Assert.All(next.Point.Disks.Zip(third.Point.Disks), each => Assert.Equal(each.Second.Root, each.First.Root));
            Assert.All(next.Point.Disks, disk => Assert.Null(disk.Why));
        }

        Assert.Contains(copies, copy => Directory.GetDirectories(copy.Spool).Length == 1);
    }

    [Fact]
    public void What_has_arrived_of_a_point_is_there_after_a_death()
    {
        using ReplicaRig rig = Two();
        new Random(3).NextBytes(rig.Write("disk0", 0, 9 * Extent));
        SpooledPoint point = rig.Cut();
        ReplicaIntake intake = rig.Replica.BeginIntake(point.Point)!;
        byte[] delta = File.ReadAllBytes(point.PathOf("disk0"));
        Assert.True(intake.TryAppend("disk0", 0, delta.AsSpan(0, 100_000), out _));
        Assert.False(intake.TryAppend("disk0", 1, delta.AsSpan(1, 5), out ulong arrived));
        Assert.Equal(100_000ul, arrived);
        _ = Assert.Throws<BlockException>(() => intake.TryAppend("disk0", arrived, new byte[delta.Length], out _));
        _ = Assert.Throws<BlockException>(() => intake.TryAppend("disk7", 0, delta, out _));
        _ = Assert.Throws<BlockException>(() => intake.Seal());
        rig.ReopenReplica();
        Assert.Equal([100_000, 0], rig.Replica.Intake!.Arrived);
        _ = rig.Send(point);
        rig.AssertAll();
    }

    /// <summary>Without the hashes of the newest point its disks are read.</summary>
    [Fact]
    public void Hashes_that_are_lost_or_damaged_are_made_anew()
    {
        using ReplicaRig rig = Two();
        string tree = Path.Combine(rig.ReplicaPath, "disk0.tree");
        File.Delete(tree);
        AssertTrees(rig.Replica);
        byte[] bytes = File.ReadAllBytes(tree);
        bytes[4100] ^= 1;
        File.WriteAllBytes(tree, bytes);
        AssertTrees(rig.Replica);
        rig.Write("disk0", 0, 1)[0] ^= 1;
        _ = rig.CutAndSend();
        rig.AssertAll();
    }

    private static void Arrive(ReplicaRig rig, SpooledPoint point)
    {
        ReplicaIntake intake = rig.Replica.BeginIntake(point.Point)!;
        foreach (SealedDisk disk in point.Point.Disks)
        {
            Assert.True(intake.TryAppend(disk.Name, 0, File.ReadAllBytes(point.PathOf(disk.Name)), out _));
        }
    }

    private static void AssertTrees(ReplicaFolder replica)
    {
        byte[] leaves = new byte[32 * 64];
        foreach (SealedDisk disk in replica.Newest!.Point.Disks)
        {
            Assert.Equal((int)((disk.Bytes + Extent - 1) / Extent), replica.LeavesOf(disk.Name, 0, leaves));
            using TreeFile tree = TreeFile.Open(Path.Combine(replica.FolderPath, ReplicaFiles.TreeOf(disk.Name)));
            Assert.Equal((disk.Root, replica.Newest.Point.Id, Guid.Empty), (tree.Root, tree.Point, tree.Pending));
        }
    }

    private static ReplicaRig Two()
    {
        ReplicaRig rig = new(20 * Extent, (3 * Extent) + 512);
        new Random(1).NextBytes(rig.Write("disk0", 0, 8 * Extent));
        rig.Write("disk1", 0, 2 * Extent).Fill(5);
        _ = rig.CutAndSend();
        rig.Write("disk0", 2 * Extent, 3 * Extent).Fill(3);
        rig.Write("disk0", 6 * Extent, Extent).Clear();
        rig.Write("disk1", 3 * Extent, 7).Fill(1);
        _ = rig.CutAndSend();
        return rig;
    }

    private static int Cancel(CancellationTokenSource cancel)
    {
        cancel.Cancel();
        return -1;
    }
}
