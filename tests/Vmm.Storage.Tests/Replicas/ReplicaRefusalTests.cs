using Vmm.Fuzz;
using Vmm.Storage.Backup;
using Vmm.Storage.Replicas;
using Vmm.Storage.Tests.Qcow2Tools;
using Vmm.Testing;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>
/// What a peer sends that is not what it should be, and hosts without space: refused by name, and the newest point stays.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class ReplicaRefusalTests
{
    private const int Extent = ReplicaRig.Extent;

    [Fact]
    public void A_byte_that_changed_anywhere_is_found_and_the_newest_point_stays()
    {
        using ReplicaRig rig = One();
        rig.Write("disk0", 0, 300).Fill(9);
        rig.Write("disk0", 5 * Extent, Extent).Clear();
        SpooledPoint point = rig.Cut();
        byte[] sound = File.ReadAllBytes(point.PathOf("disk0"));
        for (int at = 0; at < sound.Length; at += at is > 560 && at < sound.Length - 260 ? 41 : 3)
        {
            byte[] wrong = (byte[])sound.Clone();
            wrong[at] ^= 0x10;
            Refused(rig, point.Point, wrong, "");
        }

        Assert.Equal(1, rig.Send(point).Number - 1);
        rig.AssertAll();
    }

    [Fact]
    public void Deltas_of_another_vm_point_disk_or_content_are_refused_by_name()
    {
        using ReplicaRig rig = One(), other = One();
        rig.Write("disk0", 0, 300).Fill(9);
        other.Write("disk0", 0, 300).Fill(9);
        SpooledPoint second = rig.Cut(), foreign = other.Cut();
        rig.Write("disk0", 0, 300).Fill(10);
        SpooledPoint third = rig.Cut();
        byte[] delta = File.ReadAllBytes(second.PathOf("disk0")), strange = File.ReadAllBytes(foreign.PathOf("disk0"));
        byte[] late = File.ReadAllBytes(third.PathOf("disk0"));
        SealedDisk disk = second.Point.Disks[0];

        // Out of order, of another parent, of another VM: before a byte is sent.
        NotOffered(third.Point, "and the newest here is");
        NotOffered(foreign.Point, "and the newest here is");
        NotOffered(second.Point with { Owner = Guid.NewGuid() }, "it is of VM");
        NotOffered(second.Point with { Disks = [disk with { Name = "disk9" }] }, "disk9 stands on a point that is not here");
        NotOffered(second.Point with { Parent = Guid.Empty }, "no point is named");
        NotOffered(second.Point with { Disks = [disk with { Bytes = 1 }] }, "has 1 bytes");
        NotOffered(second.Point with { Disks = [disk, disk] }, "it has a disk twice");
        NotOffered(second.Point with { Disks = [disk with { Name = "../x" }] }, "a disk has no name");
        NotOffered(second.Point with { Disks = [disk with { Seal = new string('g', 64) }] }, "is no hash");

        // What comes is not what was offered.
        Guid newest = rig.Replica.Newest!.Point.Id;
        Refused(rig, Offer(strange, second.Point with { Parent = newest }), strange, "it is of another point");
        Refused(rig, Offer(late, third.Point with { Parent = newest }), late, "which is not the newest here");
        SealedDisk another = disk with { Seal = third.Point.Disks[0].Seal };
        Refused(rig, second.Point with { Disks = [another] }, delta, "not the file that was offered");
        Refused(rig, second.Point with { Disks = [disk with { Root = disk.Seal }] }, delta, "not the file that was offered");
        Refused(rig, second.Point with { Disks = [disk with { Bytes = disk.Bytes + 512 }] }, delta, "not the file that was offered");
        Refused(rig, second.Point with { Disks = [disk with { Why = "so" }] }, delta, "as one that has not");
        byte[] lying = Sealed(rig, disk.Bytes, parentRoot: new byte[32], root: new byte[32], out SealedPoint lie);
        Refused(rig, lie, lying, "a disk of another content");
        lying = Sealed(rig, disk.Bytes, Convert.FromHexString(rig.Replica.Newest.Point.Disks[0].Root), new byte[32], out lie);
        Refused(rig, lie, lying, "is not the one that was sealed");
        lying = Sealed(rig, disk.Bytes - 512, Convert.FromHexString(rig.Replica.Newest.Point.Disks[0].Root), new byte[32], out lie);
        Refused(rig, lie, lying, "and had");

        _ = rig.Send(second);
        _ = rig.Send(third);
        rig.AssertAll();

        void NotOffered(SealedPoint point, string why)
        {
            BlockException refused = Assert.Throws<BlockException>(() => rig.Replica.BeginIntake(point));
            Assert.Equal(BlockErrorKind.Damaged, refused.Kind);
            Assert.Contains(why, refused.Message, StringComparison.Ordinal);
            Assert.Null(rig.Replica.Intake);
            Assert.Single(Directory.GetFiles(rig.ReplicaPath, "*.qcow2"));
        }
    }

    [Fact]
    public void A_point_that_is_here_is_acknowledged_again_and_another_offer_replaces_one_that_comes()
    {
        using ReplicaRig rig = One();
        SpooledPoint second = rig.Cut();
        rig.Write("disk0", 0, 1)[0] ^= 1;
        _ = rig.Replica.BeginIntake(second.Point with { Id = Guid.NewGuid() });
        string dropped = Assert.Single(Directory.GetDirectories(rig.ReplicaPath));
        _ = rig.Replica.BeginIntake(second.Point);
        Assert.False(Directory.Exists(dropped));
        Assert.Equal(2, rig.Send(second).Number);
        Assert.Null(rig.Replica.BeginIntake(second.Point));
        Assert.Empty(Directory.GetDirectories(rig.ReplicaPath));
        Assert.Equal(BlockErrorKind.InUse, Assert.Throws<BlockException>(() => ReplicaFolder.Open(rig.ReplicaPath)).Kind);
        Assert.Equal(
            BlockErrorKind.InUse, Assert.Throws<BlockException>(() => ReplicaFolder.Create(rig.ReplicaPath, ReplicaRig.Owner)).Kind);
        rig.Replica.Delete();
        Assert.False(Directory.Exists(rig.ReplicaPath));
    }

    /// <summary>An image or a record that somebody changed: found, by name.</summary>
    [Fact]
    public void A_replica_that_was_damaged_is_named()
    {
        using ReplicaRig rig = One();
        string image = rig.Replica.ImageOf(rig.Replica.Newest!, "disk0");
        byte[] bytes = File.ReadAllBytes(image);
        int payload = bytes.AsSpan().IndexOf(rig.Disks["disk0"].AsSpan(Extent, 64)); // stored as it is
        Assert.True(payload > 0);
        bytes[payload] ^= 1;
        File.WriteAllBytes(image, bytes);
        BlockException found = Assert.Throws<BlockException>(() => rig.Replica.Verify(rig.Replica.Newest!));
        Assert.Contains(image, found.Message, StringComparison.Ordinal);
        rig.Replica.Dispose();
        foreach (string name in (string[])["replica.json", "000001.json", "merge.json"])
        {
            string file = Path.Combine(rig.ReplicaPath, name);
            string? sound = File.Exists(file) ? File.ReadAllText(file) : null;
            File.WriteAllText(file, "{}");
            found = Assert.Throws<BlockException>(() => ReplicaFolder.Open(rig.ReplicaPath));
            Assert.Equal((BlockErrorKind.Damaged, file), (found.Kind, found.Path));
            Assert.True(File.Exists(image));
            File.Delete(file);
            if (sound is not null)
            {
                File.WriteAllText(file, sound);
            }
        }

        rig.ReopenReplica();
    }

    [Fact]
    public void A_damaged_point_in_the_spool_and_those_behind_it_are_given_up_and_told_of()
    {
        using ReplicaRig rig = One();
        SpooledPoint[] points = [rig.Cut(), rig.Cut(), rig.Cut()];
        File.WriteAllText(Path.Combine(points[1].Folder, "point.json"), "{}");
        rig.ReopenSpool();
        Assert.Equal([points[0].Point.Id], rig.Spool.Points.Select(point => point.Point.Id));
        Assert.Contains(points[1].Folder, rig.Spool.Lost, StringComparison.Ordinal);
    }

    /// <summary>No space for the next write, wherever that is: the newest point stays, and with space the work goes on.</summary>
    [TmpfsFact]
    public void Without_space_nothing_is_lost_and_the_work_goes_on_when_there_is_some()
    {
        using ReplicaRig rig = One();
        using SmallDisk disk = new(rig["small"], 4 << 20);
        new Random(8).NextBytes(rig.Write("disk0", 2 * Extent, 4 * Extent));
        SpooledPoint second = rig.Cut();
        string folder = Path.Combine(rig["small"], "replica");
        rig.Replica.Dispose();
        Assert.Equal(0, SmallDisk.Run("cp", "-r", "--sparse=always", rig.ReplicaPath, folder));
        using ReplicaFolder replica = ReplicaFolder.Open(folder);
        int failed = 0;
        for (int free = 0; replica.Points.Count == 1; free += 40 << 10)
        {
            disk.Leave(free);
            try
            {
                ReplicaIntake intake = replica.BeginIntake(second.Point)!;
                int arrived = (int)intake.Arrived[0];
                _ = intake.TryAppend("disk0", (ulong)arrived, File.ReadAllBytes(second.PathOf("disk0")).AsSpan(arrived), out _);
                _ = intake.Seal();
            }
            catch (BlockException e) when (e.Status == DiskStatus.NoSpace)
            {
                failed++;
                rig.AssertAll(replica);
            }
        }

        Assert.InRange(failed, 5, 90);
        rig.AssertAll(replica);
        int merges = 0;
        for (int free = 0; replica.Points.Count > 1 || Directory.GetFiles(folder, "*.qcow2").Length > 1; free += 40 << 10)
        {
            disk.Leave(free);
            try
            {
                _ = replica.Merge([replica.Points[0].Point.Id], []);
            }
            catch (BlockException e) when (e.Status == DiskStatus.NoSpace)
            {
                merges++;
            }

            rig.AssertAll(replica);
        }

        Assert.InRange(merges, 1, 90);
        Assert.Equal(second.Point.Id, Assert.Single(replica.Points).Point.Id);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void The_target_of_the_fuzzer_finds_nothing_in_random_bytes()
    {
        int inputs = HostileImages.Number("VMM_FUZZ_ITERATIONS") ?? 300;
        byte[][] seeds = [.. Directory.GetFiles(Path.Combine(Tree.Root, "tests/fuzz/seeds/replica")).Order().Select(File.ReadAllBytes)];
        Assert.Equal(5, seeds.Length);
        for (int seed = 0; seed < inputs; seed++)
        {
            Random random = new(seed);
            byte[] input = new byte[random.Next(300)];
            random.NextBytes(input);
            ReplicaTarget.Run(input);
            byte[] mutated = (byte[])seeds[seed % seeds.Length].Clone();
            mutated[random.Next(1, mutated.Length)] ^= (byte)(1 << random.Next(8));
            ReplicaTarget.Run(mutated);
        }
    }

    private static ReplicaRig One()
    {
        ReplicaRig rig = new(12 * Extent);
        new Random(1).NextBytes(rig.Write("disk0", 0, 6 * Extent));
        _ = rig.CutAndSend();
        return rig;
    }

    private static void Refused(ReplicaRig rig, SealedPoint offer, byte[] delta, string why)
    {
        Guid newest = rig.Replica.Newest!.Point.Id;
        ReplicaIntake intake = rig.Replica.BeginIntake(offer)!;
        Assert.True(intake.TryAppend("disk0", 0, delta, out _));
        BlockException refused = Assert.Throws<BlockException>(() => intake.Seal());
        Assert.Contains(refused.Kind, (BlockErrorKind[])[BlockErrorKind.Damaged, BlockErrorKind.NotADisk]);
        Assert.Contains("disk0.delta", refused.Message, StringComparison.Ordinal);
        Assert.Contains(why, refused.Message, StringComparison.Ordinal);
        Assert.Equal(newest, rig.Replica.Newest!.Point.Id);
        intake.Drop();
        Assert.Empty(Directory.GetDirectories(rig.ReplicaPath));
    }

    private static SealedPoint Offer(byte[] delta, SealedPoint point) =>
        point with { Disks = [point.Disks[0] with { Stored = (ulong)delta.Length }] };

    // A sound file, made by a peer that lies about what it stands on, or what comes of it.
    private static byte[] Sealed(ReplicaRig rig, ulong bytes, byte[] parentRoot, byte[] root, out SealedPoint offer)
    {
        ArrangedPoint newest = rig.Replica.Newest!;
        DeltaHeader header = new()
        {
            Disk = "disk0",
            DiskBytes = bytes,
            Owner = ReplicaRig.Owner,
            Point = Guid.NewGuid(),
            Parent = newest.Point.Id,
            ParentRoot = parentRoot,
        };
        string path = rig[Guid.NewGuid().ToString()];
        string seal;
        using (DeltaWriter writer = new(path, header))
        {
            seal = Convert.ToHexString(writer.Finish(root));
        }

        byte[] made = File.ReadAllBytes(path);
        offer = newest.Point with
        {
            Id = header.Point,
            Parent = header.Parent,
            Disks = [new SealedDisk("disk0", bytes, (ulong)made.Length, seal, Convert.ToHexString(root))],
        };
        return made;
    }
}
