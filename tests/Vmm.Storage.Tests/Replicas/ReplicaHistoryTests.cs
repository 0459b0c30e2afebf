using Vmm.Storage.Replicas;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>Histories of disks at the recovery site: each point that is kept is what the disks were at its cut.</summary>
[Collection(Scratch.Alone)]
public sealed class ReplicaHistoryTests
{
    private const int Extent = ReplicaRig.Extent;

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, HostileImages.Number("VMM_REPLICA_HISTORIES") ?? 6)];

    [QemuTheory]
    [MemberData(nameof(Seeds))]
    public void A_random_history_arrives_and_is_kept_byte_for_byte(int seed)
    {
        Random random = new(seed);
        using ReplicaRig rig = new((40 * Extent) + 1536, 9 * Extent);
        for (int step = 0; step < 90; step++)
        {
            string which = rig.Disks.Keys.ElementAt(random.Next(rig.Disks.Count));
            byte[] disk = rig.Disks[which];
            int at = random.Next(disk.Length), length = Math.Min(disk.Length - at, 1 << random.Next(1, 19));
            switch (random.Next(14))
            {
                case < 3:
                    random.NextBytes(rig.Write(which, at, length));
                    break;
                case < 5:
                    rig.Write(which, at, length).Fill((byte)random.Next(256));
                    break;
                case < 7:
                    rig.Write(which, at, length).Clear();
                    break;
                case 7 when disk.Length < 80 * Extent:
                    Array.Resize(ref disk, disk.Length + (512 * random.Next(1, 300)));
                    rig.Disks[which] = disk;
                    break;
                case 8 when random.Next(4) == 0:
                    Reshape(rig, which, random);
                    break;
                case < 11:
                    _ = rig.Cut(random.Next(5) == 0 ? _ => ExtentSet.All("a test asks") : null);
                    break;
                case 11:
                    SendAll(rig, random);
                    break;
                case 12 when random.Next(2) == 0:
                    rig.ReopenSpool();
                    rig.ReopenReplica();
                    break;
                default:
                    Merge(rig, random);
                    rig.AssertAll();
                    break;
            }
        }

        _ = rig.Cut();
        SendAll(rig, random);
        Assert.Empty(rig.Spool.Points);
        Assert.Equal(rig.Parent, rig.Replica.Newest!.Point.Id);
        rig.AssertAll();
        rig.AskQemu();
        _ = rig.Replica.Merge([.. rig.Replica.Points.Select(point => point.Point.Id)], []);
        Assert.Single(rig.Replica.Points);
        Assert.Equal(rig.Disks.Count, Directory.GetFiles(rig.ReplicaPath, "*.qcow2").Length);
        rig.AssertAll();
        rig.AskQemu();
    }

    /// <summary>What was written with what it had is not sent, nor is a disk's content twice; a point without changes is one.</summary>
    [Fact]
    public void Only_what_differs_is_sent_and_a_full_copy_says_why()
    {
        using ReplicaRig rig = new(100 * Extent);
        new Random(1).NextBytes(rig.Write("disk0", 0, 50 * Extent));
        Assert.Equal("it is the first point", rig.CutAndSend().Point.Disks[0].Why);
        rig.Write("disk0", (7 * Extent) + 5, 1)[0] ^= 1;
        _ = rig.Write("disk0", 20 * Extent, 5 * Extent); // written with what it had
        SealedDisk second = rig.CutAndSend().Point.Disks[0];
        Assert.Null(second.Why);
        Assert.InRange(second.Stored, (ulong)Extent, (ulong)Extent + 1024);
        Assert.InRange(rig.CutAndSend(_ => ExtentSet.All("the log was lost")).Point.Disks[0].Stored, 640u, 1024u);
        rig.Disks["disk0"] = rig.Disks["disk0"][..(60 * Extent)];
        Assert.StartsWith("the disk is smaller than at point", rig.CutAndSend().Point.Disks[0].Why, StringComparison.Ordinal);
        File.Delete(rig.Spool.TreeOf("disk0"));
        Assert.Contains("no hashes", rig.CutAndSend().Point.Disks[0].Why, StringComparison.Ordinal);
        rig.AssertAll();
    }

    /// <summary>The other site tells its hashes: what differs is found, whatever either side has forgotten.</summary>
    [Fact]
    public void What_differs_is_found_by_the_hashes_of_the_other_site()
    {
        using ReplicaRig rig = new((5000 * Extent) + 512);
        new Random(2).NextBytes(rig.Write("disk0", 0, 20 * Extent));
        new Random(3).NextBytes(rig.Write("disk0", 4500 * Extent, 20 * Extent));
        ArrangedPoint newest = rig.CutAndSend();
        _ = rig.Cut(); // one that is lost
        rig.Spool.Clear();
        rig.Disks["disk0"][(4501 * Extent) + 9] ^= 1; // behind everybody's back
        using (TreeBuilder builder = new(rig.Spool.TreeOf("disk0"), newest.Point.Id, newest.Point.Disks[0].Bytes))
        {
            byte[] leaves = new byte[1000 * 32];
            ulong at = 0;
            for (int count; (count = rig.Replica.LeavesOf("disk0", at, leaves)) > 0; at += (uint)count)
            {
                builder.Add(leaves.AsSpan(0, count * 32));
            }

            Assert.Equal(5001ul, at);
            builder.Complete(newest.Point.Disks[0].Root);
        }

        rig.Parent = newest.Point.Id;
        SealedDisk found = rig.CutAndSend(_ => ExtentSet.All("resync")).Point.Disks[0];
        Assert.Null(found.Why);
        Assert.InRange(found.Stored, (ulong)Extent, (ulong)Extent + 1024);
        rig.AssertAll();
    }

    [QemuFact]
    public void Qemu_sees_the_chain_that_the_primary_had()
    {
        using ReplicaRig rig = new(30 * Extent);
        for (int i = 0; i < 3; i++)
        {
            rig.Write("disk0", i * 5 * Extent, 3 * Extent).Fill((byte)(i + 1));
            _ = rig.CutAndSend();
        }

        string told = QemuImg.Do("info", "--backing-chain", rig.Replica.ImageOf(rig.Replica.Newest!, "disk0"));
        Assert.Equal(
            ["disk0.000003.qcow2", "disk0.000002.qcow2", "disk0.000001.qcow2"],
            told.Split('\n').Where(line => line.StartsWith("image:", StringComparison.Ordinal)).Select(line => Path.GetFileName(line)));
        Assert.Contains("compression type: zstd", told, StringComparison.Ordinal);
        rig.AskQemu();
    }

    /// <summary>The site that was the primary keeps its disks, and takes what differs from them.</summary>
    [QemuFact]
    public void Disks_that_are_here_become_the_oldest_point()
    {
        using ReplicaRig rig = new((20 * Extent) + 512, 3 * Extent);
        new Random(5).NextBytes(rig.Write("disk0", Extent, 9 * Extent));
        SortedDictionary<string, byte[]> before = new(
            rig.Disks.ToDictionary(each => each.Key, each => (byte[])each.Value.Clone()), StringComparer.Ordinal);
        string folder = rig["adopted"];
        AdoptedDisk[] disks = [.. rig.Disks.Keys.Select(disk =>
        {
            File.Copy(rig.Save(disk), rig[disk + ".old"]);
            return new AdoptedDisk(disk, rig[disk + ".old"], "raw");
        })];
        SealedPoint seed = new() { Id = Guid.NewGuid(), Owner = ReplicaRig.Owner, Time = DateTimeOffset.UnixEpoch, Disks = [] };
        using (ReplicaFolder made = ReplicaFolder.Adopt(folder, seed, disks))
        {
            rig.History[seed.Id] = before;
            rig.AssertAll(made);
            foreach (SealedDisk disk in made.Newest!.Point.Disks)
            {
                using TreeBuilder builder = new(rig.Spool.TreeOf(disk.Name), seed.Id, disk.Bytes);
                byte[] leaves = new byte[32 * 64];
                builder.Add(leaves.AsSpan(0, 32 * made.LeavesOf(disk.Name, 0, leaves)));
                builder.Complete(disk.Root);
            }
        }

        rig.UseReplica(folder);
        rig.Parent = seed.Id;
        for (int i = 0; i < 3; i++)
        {
            rig.Disks["disk0"][(i * 4 * Extent) + 9] ^= 1;
            Assert.InRange(rig.CutAndSend(_ => ExtentSet.All("reverse")).Point.Disks[0].Stored, 640ul, (ulong)Extent + 1024);
        }

        rig.AssertAll();
        Assert.Equal(3, rig.Replica.Merge([.. rig.Replica.Points.Select(point => point.Point.Id)], []));
        rig.AssertAll();
        rig.AskQemu();
        Assert.All(disks, disk => Assert.Equal(before[disk.Name], File.ReadAllBytes(disk.Path))); // never written
    }

    /// <summary>While a chain is being opened, and while a point is in use, its files stay as they are.</summary>
    [Fact]
    public async Task Merges_wait_for_who_opens_a_chain_and_leave_files_in_use_alone()
    {
        using ReplicaRig rig = new(9 * Extent);
        for (int i = 0; i < 5; i++)
        {
            rig.Write("disk0", i * Extent, Extent).Fill((byte)(i + 1));
            _ = rig.CutAndSend();
        }

        Guid[] ids = [.. rig.Replica.Points.Select(point => point.Point.Id)];
        using (await rig.Replica.HoldAsync(CancellationToken.None))
        {
            Assert.Equal(1, rig.Replica.Merge([ids[1]], []));
            Assert.Equal(5, Directory.GetFiles(rig.ReplicaPath, "*.qcow2").Length);
            rig.AssertAll();
        }

        DateTime[] before = Times();
        Assert.Equal(0, rig.Replica.Merge([ids[0], ids[2]], [ids[2], ids[3]])); // the one that was begun is into a point in use
        Assert.Equal(5, Directory.GetFiles(rig.ReplicaPath, "*.qcow2").Length);
        Assert.Equal(before, Times());
        Assert.Equal(1, rig.Replica.Merge([ids[3]], []));
        Assert.Equal(3, Directory.GetFiles(rig.ReplicaPath, "*.qcow2").Length);
        rig.AssertAll();
        Assert.Equal(0, rig.Replica.Merge([ids[0]], [ids[4]])); // all stand on the oldest
        Assert.Equal(1, rig.Replica.Merge([ids[2]], [ids[0]]));
        rig.AssertAll();

        DateTime[] Times() => [.. rig.Replica.Points.Select(point => File.GetLastWriteTimeUtc(rig.Replica.ImageOf(point, "disk0")))];
    }

    private static void Reshape(ReplicaRig rig, string which, Random random)
    {
        if (rig.Disks.Count < 3)
        {
            rig.Disks[$"disk{rig.History.Count + 5}"] = new byte[random.Next(1, 20) * 4096];
        }
        else if (random.Next(2) == 0)
        {
            _ = rig.Disks.Remove(which);
        }
        else
        {
            rig.Disks[which] = rig.Disks[which][..(((rig.Disks[which].Length / 1024) + 1) * 512)];
        }
    }

    private static void SendAll(ReplicaRig rig, Random random)
    {
        foreach (SpooledPoint point in rig.Spool.Points)
        {
            _ = rig.Send(point, random);
            Assert.Null(rig.Replica.BeginIntake(point.Point)); // it is here: acknowledged again
            rig.Spool.Remove(point.Point.Id);
        }
    }

    private static void Merge(ReplicaRig rig, Random random)
    {
        IReadOnlyList<ArrangedPoint> points = rig.Replica.Points;
        Guid[] drop = [.. points.Where(_ => random.Next(2) == 0).Select(point => point.Point.Id)];
        Guid[] used = random.Next(2) == 0 ? [] : [.. points.Where(_ => random.Next(4) == 0).Select(point => point.Point.Id)];
        int gone = rig.Replica.Merge(drop, used);
        Assert.Equal(points.Count - gone, rig.Replica.Points.Count);
        Assert.All(used, id => Assert.NotNull(rig.Replica.Find(id)));
        Assert.All(rig.Replica.Points, point => Assert.Contains(point, points));
        Assert.Equal(points.Count == 0 ? null : points[^1], rig.Replica.Newest);
        Assert.All(points.Where(point => !drop.Contains(point.Point.Id)), point => Assert.Contains(point, rig.Replica.Points));
        int kept = points.Count(point => !drop.Contains(point.Point.Id) || point == points[^1]);
        Assert.InRange(rig.Replica.Points.Count, kept, used.Length > 0 ? points.Count : kept);
    }
}
