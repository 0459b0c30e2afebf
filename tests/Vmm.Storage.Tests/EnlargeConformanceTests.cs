using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Crash;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>Disks whose size is their own, made larger while they are used.</summary>
public sealed class EnlargeConformanceTests : IDisposable
{
    private const int Size = 1 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-enlarge-").FullName;

    public static TheoryData<string> Stacks => Stack.Enlarging;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [MemberData(nameof(Stacks))]
    public void An_image_that_is_enlarged_under_requests_has_zeros_behind_its_old_end(string name)
    {
        using Stack stack = new(name, Size);
        int told = 0;
        stack.Backend.OnGeometryChanged(() => told++);
        byte[] data = new byte[4096], back = new byte[4096];
        using (DiskDriver driver = stack.CreateDriver())
        {
            for (ulong end = Size, next = Size; end < 400ul << 20; end = next)
            {
                next = (end + (end / 2) + 1536) / 512 * 512;
                Assert.Equal(DiskStatus.IoError, driver.Write(end, data));
                driver[1].Prepare(BlockKind.WriteZeroes, 0, Size);
                driver.Node.Submit(driver[1]); // in flight while it grows
                driver.Loop.Submit();
                ulong wanted = next;
                Exception? failure = null;
                Thread growth = new(() => failure = Record.Exception(() => stack.Backend.Enlarge(wanted)));
                growth.Start();
                driver.WaitForAll();
                growth.Join();
                Assert.Null(failure);
                Assert.Equal(DiskStatus.Ok, driver.Status(1));
                Assert.Equal(next, driver.Node.Geometry.CapacityBytes);
                Assert.Equal(DiskStatus.Ok, driver.Read(end, back));
                Assert.Equal(new byte[4096], back);
                data.AsSpan().Fill((byte)(1 + told));
                Assert.Equal(DiskStatus.Ok, driver.Write(next - 4096, data));
                Assert.Equal(DiskStatus.Ok, driver.Read(next - 4096, back));
                Assert.Equal(data, back);
            }

            Assert.True(told > 10);
            stack.Backend.Enlarge(driver.Node.Geometry.CapacityBytes); // nothing new
            Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(() => stack.Backend.Enlarge(Size)).Kind);
            Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(() => stack.Backend.Enlarge(1ul << 62)).Kind);
            Assert.Equal(DiskStatus.Ok, driver.Read(0, back));
            stack.CloseBelow(driver.Loop);
        }
    }

    [Theory]
    [InlineData("cluster_size=64k", Size)]
    [InlineData("cluster_size=64k", Size + 512)]
    [InlineData("cluster_size=64k,extended_l2=on", Size + 512)]
    [InlineData("cluster_size=4k", Size - 1024)]
    public void What_a_longer_image_below_has_behind_the_old_end_is_not_seen(string options, int size)
    {
        string below = Path.Combine(_folder, "below.raw"), top = Path.Combine(_folder, "top.qcow2"), model = Path.Combine(_folder, "model");
        byte[] content = new byte[4 * Size];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(below, content);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", options, "-b", below, "-F", "raw", top, $"{size}");
        using (Qcow2Disk disk = Open(top, below))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal(DiskStatus.Ok, driver.Write((ulong)(size - 512), content.AsSpan(0, 512))); // copies what is around it
            disk.Enlarge(3 * Size);
            content.AsSpan(0, 512).CopyTo(content.AsSpan(size - 512));
            content.AsSpan(size).Clear();
            byte[] seen = new byte[3 * Size];
            Assert.Equal(DiskStatus.Ok, driver.Read(0, seen));
            Assert.True(seen.AsSpan().SequenceEqual(content.AsSpan(0, seen.Length)));
            driver.Node.FlushAndClose(driver.Loop);
        }

        File.WriteAllBytes(model, content[..(3 * Size)]);
        QemuImg.Run("check", "-q", top);
        QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", top, model);
    }

    [Fact]
    public void What_cannot_grow_says_why()
    {
        string below = Path.Combine(_folder, "below.raw"), top = Path.Combine(_folder, "top.qcow2");
        File.WriteAllBytes(below, new byte[2 * Size]);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", below, "-F", "raw", top, $"{Size}");
        using (Qcow2Disk old = Open(top, below))
        {
            Assert.Contains("of version 2", Assert.Throws<BlockException>(() => old.Enlarge(2 * Size)).Message, StringComparison.Ordinal);
            Assert.Equal((ulong)Size, old.Geometry.CapacityBytes);
        }

        using Qcow2Disk read = Qcow2Disk.Open(
            [Layer(top, ImageFormat.Qcow2, readOnly: true), Layer(below, ImageFormat.Raw, readOnly: true)]);
        Assert.Contains("read-only", Assert.Throws<BlockException>(() => read.Enlarge(2 * Size)).Message, StringComparison.Ordinal);
        using RawFileBackend raw = RawFileBackend.Open(below, new() { ReadOnly = true });
        Assert.Equal(BlockErrorKind.BadSize, Assert.Throws<BlockException>(() => ((IDiskBackend)raw).Enlarge(4 * Size)).Kind);
    }

    [Fact]
    public void An_image_and_a_mirror_say_whether_the_host_has_space()
    {
        string top = Path.Combine(_folder, "top.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", top, $"{Size}");
        CrashFile source = new(SparseBytes.Load(top), 1), target = new(SparseBytes.Load(top), 1);
        using DiskMirror mirror = new(
            Qcow2Disk.Open([new ImageLayer(source, ImageFormat.Qcow2)]), Qcow2Disk.Open([new ImageLayer(target, ImageFormat.Qcow2)]));
        Assert.True(mirror.HasSpace);
        target.HasSpace = false; // ends the copy, and fails no request of the disk
        Assert.True(mirror.HasSpace);
        source.HasSpace = false;
        Assert.False(mirror.HasSpace);
    }

    private static Qcow2Disk Open(string top, string below) =>
        Qcow2Disk.Open([Layer(top, ImageFormat.Qcow2, readOnly: false), Layer(below, ImageFormat.Raw, readOnly: true)]);

    private static ImageLayer Layer(string path, ImageFormat format, bool readOnly) =>
        new(new RawImageFile(RawFileBackend.Open(path, new() { IsImage = true, ReadOnly = readOnly })), format);
}
