using System.Security.Cryptography;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Crash;
using Vmm.Testing.Images;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>The power goes, or the space ends, at every step of a tool: afterwards there is the old disk or the new one.</summary>
[Collection(Scratch.Alone)]
public sealed class ToolCrashTests
{
    private const int Outcomes = 12; // of each cut

    [QemuTheory]
    [InlineData(1)]
    [InlineData(3)]
    public void An_edit_that_is_cut_off_leaves_the_old_disk_or_the_new_one(int kind)
    {
        byte[] sound = Image(kind);
        int whole = EveryCut(sound, Edit, (before, after, now) =>
        {
            Assert.Contains(Hash(now), new[] { before, after });
            Assert.Equal(0ul, Check(now).Corruptions);
        });
        Assert.True(whole > 10, $"only {whole} steps");
    }

    [QemuFact]
    public void A_rebuild_of_refcounts_that_is_cut_off_can_be_made_again()
    {
        byte[] broken = Image(1);
        Qcow2Header header = Qcow2Header.Parse(broken, "image");
        broken.AsSpan((int)header.RefcountTableOffset, 8).Clear();
        EveryCut(broken, file => Qcow2Repair.Run(file, RepairMode.All), (before, _, now) =>
        {
            Assert.Equal(before, Hash(now));
            Assert.True(Qcow2Repair.Run(now, RepairMode.All).After.IsClean);
            Assert.Equal(before, Hash(now));
        });
    }

    [QemuFact]
    public void A_repair_in_place_that_is_cut_off_can_be_made_again()
    {
        byte[] broken = Image(0);
        Qcow2Header header = Qcow2Header.Parse(broken, "image");
        using (ByteImage file = new(broken))
        {
            StoredRefcounts counts = new(file, header);
            counts.Set(1, 0);
            counts.Set(4, 0);
            counts.Set(5, 7);
        }

        EveryCut(broken, file => Qcow2Repair.Run(file, RepairMode.All), (before, _, now) =>
        {
            Assert.Equal(before, Hash(now));
            Assert.True(Qcow2Repair.Run(now, RepairMode.All).After.IsClean);
        });
    }

    [Fact]
    public void A_new_image_that_is_cut_off_is_none_or_whole()
    {
        Random random = new(5);
        int steps = Steps([], Build);
        bool none = false, complete = false;
        for (int cut = 1; cut <= steps; cut++)
        {
            using CrashFile file = new(new SparseBytes(), cut);
            file.Plan(f => f.CutAt(cut));
            _ = Assert.Throws<BlockException>(() => Build(file));
            for (int i = 0; i < Outcomes; i++)
            {
                using ByteImage now = Bytes(file.CutPower(random));
                byte[] magic = new byte[4];
                now.Read(magic, 0);
                if (Qcow2Header.HasMagic(magic))
                {
                    Assert.True(Check(now).IsClean);
                    complete = true;
                }

                none |= !Qcow2Header.HasMagic(magic);
            }
        }

        Assert.True(none && complete);
    }

    [QemuFact]
    public void Without_space_an_edit_changes_nothing()
    {
        byte[] sound = Image(1);
        string before = Hash(new ByteImage((byte[])sound.Clone()));
        int steps = Steps(sound, Edit);
        for (int full = 1; full <= steps; full++)
        {
            using CrashFile file = new(Sparse(sound), full);
            file.Plan(f => f.FailAt(FileSteps.NeedSpace, full, DiskStatus.NoSpace, count: 1_000_000));
            try
            {
                Edit(file);
                break; // as many steps need no space
            }
            catch (BlockException e)
            {
                Assert.Equal(DiskStatus.NoSpace, e.Status);
            }

            file.Plan(f => f.Clear());
            Assert.Equal(before, Hash(file));
            Assert.Equal(0ul, Check(file).Corruptions);
        }
    }

    // Some clusters get other content, the disk grows.
    private static void Edit(IImageFile file)
    {
        Qcow2Header header = ImageFiles.ReadHeader(file);
        Qcow2Editor editor = new(file, header, ToolProgress.None);
        byte[] cluster = new byte[header.Geometry.ClusterSize];
        for (ulong at = 0; at < 8 << 20; at += 1 << 20)
        {
            cluster.AsSpan().Fill((byte)(0x50 + (at >> 20)));
            editor.Set(at, L2Entry.Data(header.Geometry, editor.Append(cluster)));
        }

        editor.Resize(header.DiskSize * 3);
        _ = editor.Commit(ToolProgress.None);
    }

    private static void Build(IImageFile file)
    {
        Qcow2Builder builder = new(file, new Qcow2CreateOptions { DiskSize = 8 << 20, ClusterBits = 12 });
        for (ulong at = 0; at < 8 << 20; at += 1 << 20)
        {
            builder.AddData(at, new byte[4096]);
        }

        _ = builder.Finish(ToolProgress.None);
    }

    /// <summary>Cuts at every step, and gives some outcomes of each, with the disk before and after the whole work.</summary>
    private static int EveryCut(byte[] content, Action<IImageFile> work, Action<string, string, ByteImage> judge)
    {
        using ByteImage before = new((byte[])content.Clone()), after = new((byte[])content.Clone());
        work(after);
        (string was, string becomes) = (Hash(before), Hash(after));
        Random random = new(content.Length);
        int steps = Steps(content, work);
        for (int cut = 1; cut <= steps; cut++)
        {
            using CrashFile file = new(Sparse(content), cut);
            file.Plan(f => f.CutAt(cut));
            _ = Assert.Throws<BlockException>(() => work(file));
            for (int i = 0; i < Outcomes; i++)
            {
                using ByteImage now = Bytes(file.CutPower(random));
                judge(was, becomes, now);
            }
        }

        return steps;
    }

    private static int Steps(byte[] content, Action<IImageFile> work)
    {
        using CrashFile file = new(Sparse(content));
        work(file);
        return file.Changes;
    }

    private static byte[] Image(int kind)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["image"], kind);
        return File.ReadAllBytes(scratch["image"]);
    }

    private static SparseBytes Sparse(byte[] content)
    {
        SparseBytes bytes = new() { Length = (ulong)content.Length };
        bytes.Write(content, 0);
        return bytes;
    }

    private static ByteImage Bytes(SparseBytes content)
    {
        byte[] bytes = new byte[content.Length];
        content.Read(bytes, 0);
        return new ByteImage(bytes);
    }

    private static CheckReport Check(IImageFile file) => Qcow2Check.Run(file);

    private static string Hash(IImageFile file)
    {
        using Qcow2Layer layer = new(file, isOwner: false);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] block = new byte[1 << 16];
        for (ulong at = 0; at < layer.Size;)
        {
            DiskExtent extent = layer.Map(at, Math.Min((ulong)block.Length, layer.Size - at));
            Span<byte> part = block.AsSpan(0, (int)extent.Length);
            part.Clear();
            if (extent.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed)
            {
                layer.Read(extent, part);
            }

            hash.AppendData(part);
            at += extent.Length;
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }
}
