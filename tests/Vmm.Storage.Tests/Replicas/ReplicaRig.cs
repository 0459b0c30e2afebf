using System.Diagnostics;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>Raw disks with both sides of their replica, and what they held at every cut.</summary>
internal sealed class ReplicaRig : IDisposable
{
    internal const int Extent = DeltaFormat.ExtentBytes;

    private readonly Scratch _scratch = new();
    private readonly Dictionary<string, SortedSet<ulong>> _written = [];

    internal ReplicaRig(params int[] sizes)
    {
        for (int i = 0; i < sizes.Length; i++)
        {
            Disks[$"disk{i}"] = new byte[sizes[i]];
        }

        ReplicaPath = _scratch["replica"];
        Spool = ReplicaSpool.Open(SpoolPath, TreesPath);
        Replica = ReplicaFolder.Create(ReplicaPath, Owner);
    }

    internal static Guid Owner { get; } = new(7, 8, 9, new byte[8]);

    /// <summary>What the disks hold now.</summary>
    internal SortedDictionary<string, byte[]> Disks { get; } = new(StringComparer.Ordinal);

    /// <summary>What they held at each point.</summary>
    internal Dictionary<Guid, SortedDictionary<string, byte[]>> History { get; } = [];

    internal Guid Parent { get; set; }

    internal ReplicaSpool Spool { get; private set; }

    internal ReplicaFolder Replica { get; private set; }

    internal string SpoolPath => _scratch["spool"];

    internal string TreesPath => _scratch["trees"];

    internal string ReplicaPath { get; private set; }

    internal string this[string name] => _scratch[name];

    /// <summary>The bytes of a part of a disk, to be changed.</summary>
    internal Span<byte> Write(string disk, int at, int length)
    {
        for (int extent = at / Extent; extent <= (at + length - 1) / Extent; extent++)
        {
            _ = Written(disk).Add((ulong)extent);
        }

        return Disks[disk].AsSpan(at, length);
    }

    internal string Save(string disk)
    {
        string path = _scratch[disk + ".img"];
        using FileStream file = File.Create(path);
        byte[] bytes = Disks[disk];
        file.SetLength(bytes.Length);
        for (int at = 0; at < bytes.Length; at += 4096)
        {
            ReadOnlySpan<byte> block = bytes.AsSpan(at, Math.Min(4096, bytes.Length - at));
            if (block.ContainsAnyExcept((byte)0))
            {
                file.Position = at;
                file.Write(block);
            }
        }

        return path;
    }

    /// <summary>Makes a point of the disks as they are, and writes down what it has to hold.</summary>
    internal SpooledPoint Cut(Func<string, ExtentSet>? changed = null, ToolProgress? progress = null, string? whyFull = null)
    {
        CutDisk[] disks = [.. Disks.Keys.Select(disk => new CutDisk(
            disk, Save(disk), "raw", changed?.Invoke(disk) ?? ExtentSet.Of(Written(disk).Select(extent => new ExtentRange(extent, 1)))))];
        Guid id = Guid.NewGuid();
        History[id] = new SortedDictionary<string, byte[]>(
            Disks.ToDictionary(each => each.Key, each => (byte[])each.Value.Clone()), StringComparer.Ordinal);
        SpooledPoint made = CutMaker.Run(
            disks,
            new CutWish
            {
                Owner = Owner,
                Point = id,
                Parent = Parent,
                Time = DateTimeOffset.UnixEpoch.AddMinutes(History.Count),
                Spec = "name: vm",
                WhyFull = whyFull,
            },
            Spool,
            progress);
        Parent = id;
        _written.Clear();
        return made;
    }

    /// <summary>Sends a point in parts, with places where the other site is opened anew.</summary>
    internal ArrangedPoint Send(SpooledPoint point, Random? random = null)
    {
        ReplicaIntake intake = Replica.BeginIntake(point.Point)!;
        for (int i = 0; i < point.Point.Disks.Count; i++)
        {
            SealedDisk disk = point.Point.Disks[i];
            using FileStream delta = ReplicaSpool.Open(point, disk.Name);
            while (intake.Arrived[i] < disk.Stored)
            {
                delta.Position = (long)intake.Arrived[i];
                byte[] part = new byte[random?.Next(1, 200_000) ?? (1 << 20)];
                int read = delta.Read(part);
                Assert.True(intake.TryAppend(disk.Name, (ulong)delta.Position - (ulong)read, part.AsSpan(0, read), out ulong arrived));
                Assert.Equal((ulong)delta.Position, arrived);
                if (random?.Next(8) == 0)
                {
                    ReopenReplica();
                    intake = Replica.BeginIntake(point.Point)!;
                }
            }
        }

        return intake.Seal();
    }

    internal ArrangedPoint CutAndSend(Func<string, ExtentSet>? changed = null)
    {
        SpooledPoint point = Cut(changed);
        ArrangedPoint made = Send(point);
        Spool.Remove(point.Point.Id);
        return made;
    }

    internal void ReopenReplica()
    {
        Replica.Dispose();
        Replica = ReplicaFolder.Open(ReplicaPath);
    }

    /// <summary>Another replica is sent to.</summary>
    internal void UseReplica(string path)
    {
        ReplicaPath = path;
        ReopenReplica();
    }

    internal void ReopenSpool() => Spool = ReplicaSpool.Open(SpoolPath, TreesPath);

    /// <summary>Every disk of a point is what it was.</summary>
    internal void AssertPoint(ReplicaFolder replica, ArrangedPoint point)
    {
        SortedDictionary<string, byte[]> expected = History[point.Point.Id];
        Assert.Equal(expected.Keys, point.Point.Disks.Select(disk => disk.Name));
        foreach ((string disk, byte[] bytes) in expected)
        {
            Assert.True(bytes.AsSpan().SequenceEqual(Read(replica.ImageOf(point, disk))), $"point {point.Number}, {disk}");
        }

        replica.Verify(point);
    }

    internal void AssertAll(ReplicaFolder? replica = null)
    {
        foreach (ArrangedPoint point in (replica ?? Replica).Points)
        {
            AssertPoint(replica ?? Replica, point);
        }
    }

    /// <summary>qemu-img finds each image sound, and the newest point's disks identical to the primary's.</summary>
    internal void AskQemu()
    {
        foreach (string image in Directory.GetFiles(ReplicaPath, "*.qcow2"))
        {
            (int code, ulong corruptions, ulong leaks, string output) = QemuImg.Check(image);
            Assert.True((code, corruptions, leaks) == (0, 0, 0), output);
        }

        ArrangedPoint newest = Replica.Newest!;
        foreach ((string disk, byte[] bytes) in History[newest.Point.Id])
        {
            string raw = _scratch["then.img"];
            File.WriteAllBytes(raw, bytes);
            Assert.Contains(
                "identical",
                QemuImg.Do("compare", "-f", "raw", "-F", "qcow2", raw, Replica.ImageOf(newest, disk)),
                StringComparison.Ordinal);
        }
    }

    internal static byte[] Read(string image)
    {
        using ImageChain chain = ImageChain.Open(image, "qcow2");
        byte[] bytes = new byte[chain.Size];
        chain.Read(bytes, 0);
        return bytes;
    }

    /// <summary>A copy of a folder as a death would leave it.</summary>
    internal string Copy(string folder, string name)
    {
        // Another program: files that are open alone cannot be read by this one.
        using Process copy = Process.Start("cp", ["-r", "--sparse=always", folder, _scratch[name]]);
        copy.WaitForExit();
        Assert.Equal(0, copy.ExitCode);
        return _scratch[name];
    }

    public void Dispose()
    {
        Replica.Dispose();
        _scratch.Dispose();
    }

    private SortedSet<ulong> Written(string disk)
    {
        if (!_written.TryGetValue(disk, out SortedSet<ulong>? written))
        {
            _written[disk] = written = [];
        }

        return written;
    }
}
