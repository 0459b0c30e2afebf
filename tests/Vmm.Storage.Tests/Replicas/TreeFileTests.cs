using System.Security.Cryptography;
using Vmm.Storage.Backup;
using Vmm.Storage.Replicas;
using Vmm.Storage.Tests.Qcow2Tools;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>The file of a disk's hashes against the tree of a backup, which is computed from its beginning to its end.</summary>
[Collection(Scratch.Alone)]
public sealed class TreeFileTests
{
    private const ulong Extent = DeltaFormat.ExtentBytes;

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, 8)];

    [Theory]
    [MemberData(nameof(Seeds))]
    public void It_has_the_root_of_a_backups_tree_after_every_delta(int seed)
    {
        Random random = new(seed);
        using Scratch scratch = new();
        string path = scratch["disk0.tree"];
        SortedDictionary<ulong, byte[]> leaves = [];
        ulong bytes = 512 * (ulong)random.Next(1, 3_000_000);
        Guid point = Guid.Empty;
        byte[] root = [];
        for (int step = 0; step < 12; step++)
        {
            bool isFull = step == 0 || random.Next(6) == 0;
            bytes += isFull ? 0 : 512 * (ulong)random.Next(0, 2) * (ulong)random.Next(1_000_000);
            SortedDictionary<ulong, byte[]> changes = [];
            for (int i = random.Next(40); i > 0; i--)
            {
                ulong extent = (ulong)random.NextInt64((long)DeltaFormat.ExtentsOf(bytes));
                changes[extent] = !isFull && random.Next(3) == 0 ? DeltaFormat.ZeroLeaf
                    : SHA256.HashData(BitConverter.GetBytes(random.Next()));
            }

            if (isFull)
            {
                leaves.Clear();
            }

            foreach ((ulong extent, byte[] leaf) in changes)
            {
                leaves[extent] = leaf;
            }

            DeltaHeader header = new()
            {
                Disk = "disk0",
                DiskBytes = bytes,
                Owner = Guid.NewGuid(),
                Point = Guid.NewGuid(),
                Parent = isFull ? Guid.Empty : point,
                ParentRoot = isFull ? new byte[32] : root,
            };
            root = RootOf(bytes, leaves);
            string delta = scratch[$"{step}.delta"];
            Write(delta, header, changes, root);
            AdvanceWithDeaths(path, delta, scratch, random);
            point = header.Point;
            using TreeFile tree = TreeFile.Open(path);
            Assert.Equal((bytes, point, Guid.Empty), (tree.DiskBytes, tree.Point, tree.Pending));
            Assert.Equal(root, tree.RootBytes);
            AssertLeaves(tree, leaves, random);
        }
    }

    [Fact]
    public void A_delta_that_does_not_stand_on_it_and_a_root_that_is_not_its_are_refused()
    {
        using Scratch scratch = new();
        string path = scratch["disk0.tree"], first = scratch["1"], other = scratch["2"], lying = scratch["3"];
        DeltaHeader header = new() { Disk = "disk0", DiskBytes = 10 * Extent, Owner = Guid.NewGuid(), Point = Guid.NewGuid() };
        byte[] root = RootOf(10 * Extent, []);
        Write(first, header, [], root);
        TreeFile.Advance(path, first);
        TreeFile.Advance(path, first); // it is there
        DeltaHeader next = header with { Point = Guid.NewGuid(), Parent = header.Point, ParentRoot = root };
        Write(other, next with { Parent = Guid.NewGuid() }, [], root);
        BlockException refused = Assert.Throws<BlockException>(() => TreeFile.Advance(path, other));
        Assert.Contains("does not stand on that", refused.Message, StringComparison.Ordinal);
        Write(lying, next, new() { [2] = SHA256.HashData([1]) }, root);
        refused = Assert.Throws<BlockException>(() => TreeFile.Advance(path, lying));
        Assert.Contains("and not that of point", refused.Message, StringComparison.Ordinal);
        using TreeFile pending = TreeFile.Open(path);
        Assert.Equal(next.Point, pending.Pending);
        Assert.Throws<BlockException>(() => pending.ReadLeaves(0, new byte[32]));
    }

    [Fact]
    public void A_byte_that_changed_in_the_header_a_node_or_a_leaf_is_found()
    {
        using Scratch scratch = new();
        string path = scratch["disk0.tree"], first = scratch["1"], second = scratch["2"];
        ulong bytes = 5000 * Extent;
        DeltaHeader header = new() { Disk = "disk0", DiskBytes = bytes, Owner = Guid.NewGuid(), Point = Guid.NewGuid() };
        SortedDictionary<ulong, byte[]> leaves = new() { [3] = SHA256.HashData([3]), [4999] = SHA256.HashData([4]) };
        byte[] root = RootOf(bytes, leaves);
        Write(first, header, leaves, root);
        TreeFile.Advance(path, first);
        byte[] sound = File.ReadAllBytes(path);
        SortedDictionary<ulong, byte[]> change = new() { [4] = SHA256.HashData([5]), [4998] = SHA256.HashData([6]) };
        foreach ((ulong extent, byte[] leaf) in change)
        {
            leaves[extent] = leaf;
        }

        Write(second, header with { Point = Guid.NewGuid(), Parent = header.Point, ParentRoot = root }, change, RootOf(bytes, leaves));
        int leaf3 = (int)TreeFormat.LeavesOffset + (3 * 32);
        foreach (int at in (int[])[0, 9, 17, 50, 70, 85, 115, 4096, 4096 + 40, leaf3, leaf3 + 31, leaf3 + 64, leaf3 + (4996 * 32)])
        {
            byte[] wrong = (byte[])sound.Clone();
            wrong[at] ^= 4;
            File.WriteAllBytes(path, wrong);
            _ = Assert.Throws<BlockException>(() => TreeFile.Advance(path, second));
        }

        File.WriteAllBytes(path, sound);
        TreeFile.Advance(path, second);
    }

    // Each death is a copy of the file; the same delta brings it on from there.
    private static void AdvanceWithDeaths(string path, string delta, Scratch scratch, Random random)
    {
        List<string> deaths = [];
        using (DeltaReader reader = DeltaReader.Open(delta))
        {
            TreeFile.Advance(path, reader, () =>
            {
                if (random.Next(6) == 0)
                {
                    string copy = scratch[$"death-{Guid.NewGuid()}"];
                    Assert.Equal(0, SmallDisk.Run("cp", "--sparse=always", path, copy));
                    deaths.Add(copy);
                }
            });
            using TreeFile made = TreeFile.Open(path);
            foreach (string death in deaths)
            {
                using (TreeFile dead = TreeFile.Open(death))
                {
                    Assert.Equal(reader.Header.Point, dead.Pending);
                }

                TreeFile.Advance(death, delta);
                using TreeFile again = TreeFile.Open(death);
                Assert.Equal((made.Root, made.Point, Guid.Empty), (again.Root, again.Point, again.Pending));
                File.Delete(death);
            }
        }
    }

    private static void AssertLeaves(TreeFile tree, SortedDictionary<ulong, byte[]> leaves, Random random)
    {
        byte[] read = new byte[50 * 32];
        ulong from = (ulong)random.NextInt64((long)tree.Extents);
        int count = tree.ReadLeaves(from, read);
        Assert.Equal((int)Math.Min(50, tree.Extents - from), count);
        for (int i = 0; i < count; i++)
        {
            Assert.Equal(leaves.GetValueOrDefault(from + (ulong)i, DeltaFormat.ZeroLeaf), read.AsSpan(i * 32, 32).ToArray());
        }

        ulong[] data = [.. leaves.Where(each => !each.Value.AsSpan().SequenceEqual(DeltaFormat.ZeroLeaf)).Select(each => each.Key)];
        List<ulong> found = [];
        for (ulong at = 0; (at = tree.NextData(at, tree.Extents)) < tree.Extents; at++)
        {
            found.Add(at);
        }

        Assert.Equal(data, found);
        Assert.Equal(0, tree.ReadLeaves(tree.Extents, read));
    }

    private static byte[] RootOf(ulong bytes, SortedDictionary<ulong, byte[]> leaves)
    {
        using DiskTree tree = new(bytes);
        foreach ((ulong extent, byte[] leaf) in leaves)
        {
            if (!leaf.AsSpan().SequenceEqual(DeltaFormat.ZeroLeaf))
            {
                tree.Add(extent, leaf);
            }
        }

        return tree.Finish();
    }

    // The bytes of an extent are no matter here: only its hash is.
    private static void Write(string path, DeltaHeader header, SortedDictionary<ulong, byte[]> leaves, byte[] root)
    {
        using DeltaWriter writer = new(path, header);
        byte[] content = new byte[Extent];
        foreach ((ulong extent, byte[] leaf) in leaves)
        {
            writer.Add(extent, leaf.AsSpan().SequenceEqual(DeltaFormat.ZeroLeaf) ? [] : content, leaf);
        }

        _ = writer.Finish(root);
    }
}
