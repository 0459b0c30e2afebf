using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Backup;

/// <summary>Raw disks whose content is known at every point of their backup.</summary>
internal sealed class BackupRig : IDisposable
{
    internal const int Extent = DeltaFormat.ExtentBytes;

    private readonly Scratch _scratch = new();

    internal BackupRig(params int[] sizes)
    {
        for (int i = 0; i < sizes.Length; i++)
        {
            Disks.Add(new byte[sizes[i]]);
            Save(i);
        }
    }

    /// <summary>What the disks hold now.</summary>
    internal List<byte[]> Disks { get; } = [];

    /// <summary>What they held at each point.</summary>
    internal List<byte[][]> History { get; } = [];

    internal string Folder => _scratch["points"];

    internal BackupFolder Points => BackupFolder.Open(Folder);

    internal string this[string name] => _scratch[name];

    internal string PathOf(int disk) => _scratch[$"disk{disk}.img"];

    /// <summary>What the rig knows becomes the file, with holes where it has zeros.</summary>
    internal void Save(int disk)
    {
        using FileStream file = File.Create(PathOf(disk));
        file.SetLength(Disks[disk].Length);
        for (int at = 0; at < Disks[disk].Length; at += 4096)
        {
            ReadOnlySpan<byte> block = Disks[disk].AsSpan(at, Math.Min(4096, Disks[disk].Length - at));
            if (block.ContainsAnyExcept((byte)0))
            {
                file.Position = at;
                file.Write(block);
            }
        }
    }

    /// <summary>Makes a point and writes down what it has to hold.</summary>
    internal StoredPoint Backup(string owner = "vm", bool full = false, ToolProgress? progress = null)
    {
        for (int i = 0; i < Disks.Count; i++)
        {
            Save(i);
        }

        StoredPoint made = BackupCreator.Run(Sources(), Wish(owner, full), progress);
        History.Add([.. Disks.Select(disk => (byte[])disk.Clone())]);
        return made;
    }

    internal BackupSource[] Sources() => [.. Disks.Select((_, i) => new BackupSource($"disk{i}", PathOf(i), "raw"))];

    internal BackupWish Wish(string owner = "vm", bool full = false) => new()
    {
        Folder = Folder,
        Owner = BackupWish.OwnerOf(owner),
        Name = owner,
        Time = DateTimeOffset.UnixEpoch,
        Full = full,
    };

    /// <summary>Restores every disk of a point, and they have to be what they were.</summary>
    internal void AssertPoint(int number)
    {
        byte[][] expected = History[number - 1];
        StoredPoint point = Points.Require(number);
        for (int i = 0; i < expected.Length; i++)
        {
            BackupRestorer.Verify(Points, point, $"disk{i}");
            string restored = _scratch[$"restored-{number}-{i}"];
            BackupRestorer.Restore(Points, point, $"disk{i}", restored, "raw");
            Assert.True(expected[i].AsSpan().SequenceEqual(File.ReadAllBytes(restored)), $"point {number}, disk{i}");
            File.Delete(restored);
        }
    }

    public void Dispose() => _scratch.Dispose();
}
