using System.Buffers.Binary;
using Vmm.Storage;
using Vmm.Storage.Backup;
using Vmm.Storage.Replicas;

namespace Vmm.Fuzz;

/// <summary>
/// What the files of a replica may hold, by the first byte: a record of a point, the record of the merges, a tree file of any bytes, one
/// whose header and nodes have sound hashes, or a delta with sound hashes that a peer sends. Each is read, or refused with one error of
/// bounded length; a point that was there stays.
/// </summary>
internal static class ReplicaTarget
{
    private const int Kinds = 5;

    private static readonly Guid s_owner = new(1, 2, 3, new byte[8]), s_point = new(4, 5, 6, new byte[8]);

    internal static void Run(byte[] input)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-fuzz-replica-").FullName;
        try
        {
            ReadOnlySpan<byte> rest = input.AsSpan(Math.Min(1, input.Length));
            switch (input.Length == 0 ? 0 : input[0] % Kinds)
            {
                case 0:
                    Open(folder, "000001.json", rest);
                    break;
                case 1:
                    Open(folder, "merge.json", rest);
                    break;
                case 2:
                    ReadTree(folder, rest);
                    break;
                case 3:
                    ReadTree(folder, SoundTree(rest));
                    break;
                default:
                    Arrange(folder, BackupTarget.Sealed(rest));
                    break;
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>A tree file with sound hashes of its header and nodes; the leaves are any.</summary>
    private static byte[] SoundTree(ReadOnlySpan<byte> input)
    {
        ulong bytes = 512 * (1 + (input.Length < 4 ? 7 : BinaryPrimitives.ReadUInt32LittleEndian(input) % (1u << 24)));
        byte[] page = new byte[TreeFormat.PageBytes], nodes = new byte[TreeFormat.NodesOf(bytes) * DeltaFormat.HashBytes];
        input[..Math.Min(input.Length, page.Length)].CopyTo(page);
        TreeFormat.HashOf(page, new byte[TreeFormat.PageBytes]).CopyTo(nodes, 0);
        byte[] file = new byte[(int)TreeFormat.LeavesOffset + page.Length];
        TreeFormat.Encode(new TreeHeader(bytes, s_point, Guid.Empty, TreeFormat.RootOf(bytes, nodes))).CopyTo(file, 0);
        nodes.CopyTo(file, TreeFormat.NodesOffset);
        page.CopyTo(file, (int)TreeFormat.LeavesOffset);
        return file;
    }

    private static void Open(string folder, string name, ReadOnlySpan<byte> text)
    {
        string replica = Path.Combine(folder, "replica");
        ReplicaFolder.Create(replica, s_owner).Dispose();
        File.WriteAllBytes(Path.Combine(replica, name), text);
        try
        {
            using ReplicaFolder opened = ReplicaFolder.Open(replica);
            foreach (ArrangedPoint point in opened.Points)
            {
                if (point.Point.Disks.Any(disk => Path.GetDirectoryName(opened.ImageOf(point, disk.Name)) != replica))
                {
                    throw new InvalidOperationException("an image lies outside of its replica");
                }
            }

            _ = opened.Merge([.. opened.Points.Select(point => point.Point.Id)], []);
            foreach (ArrangedPoint point in opened.Points)
            {
                Refused(replica, () => opened.Verify(point));
            }
        }
        catch (BlockException e)
        {
            Bounded(e, replica);
        }
    }

    private static void ReadTree(string folder, ReadOnlySpan<byte> bytes)
    {
        string path = Path.Combine(folder, "disk0.tree");
        File.WriteAllBytes(path, bytes);
        Refused(folder, () =>
        {
            using TreeFile tree = TreeFile.Open(path);
            byte[] leaves = new byte[DeltaFormat.HashBytes * 64];
            for (ulong at = 0; at < Math.Min(tree.Extents, 4096); at += 64)
            {
                _ = tree.ReadLeaves(at, leaves);
            }

            _ = tree.NextData(0, tree.Extents);
            TreeUpdate update = new(tree, tree.DiskBytes, writes: false);
            update.Set(0, DeltaFormat.ZeroLeaf);
            _ = update.Finish();
        });
    }

    private static void Arrange(string folder, byte[] delta)
    {
        string replica = Path.Combine(folder, "replica");
        using ReplicaFolder opened = ReplicaFolder.Create(replica, s_owner);
        SealedPoint offer = new()
        {
            Id = s_point,
            Owner = s_owner,
            Time = DateTimeOffset.UnixEpoch,
            Disks =
            [
                new SealedDisk(
                    "disk0",
                    BinaryPrimitives.ReadUInt64LittleEndian(delta.AsSpan(16)),
                    (ulong)delta.Length,
                    Convert.ToHexString(delta.AsSpan(delta.Length - DeltaFormat.HashBytes)),
                    Convert.ToHexString(delta.AsSpan(delta.Length - DeltaFormat.SealBytes + 64, DeltaFormat.HashBytes)),
                    "fuzz"),
            ],
        };
        Refused(replica, () =>
        {
            ReplicaIntake intake = opened.BeginIntake(offer)!;
            _ = intake.TryAppend("disk0", 0, delta, out _);
            opened.Verify(intake.Seal()); // sound, so what was sealed can be read
        });
    }

    private static void Refused(string folder, Action act)
    {
        try
        {
            act();
        }
        catch (BlockException e)
        {
            Bounded(e, folder);
        }
    }

    private static void Bounded(BlockException e, string folder)
    {
        if (e.Message.Length is 0 or > 1000 || e.Path?.StartsWith(folder, StringComparison.Ordinal) != true)
        {
            throw new InvalidOperationException($"an error of {e.Message.Length} letters, of {e.Path}", e);
        }
    }
}
