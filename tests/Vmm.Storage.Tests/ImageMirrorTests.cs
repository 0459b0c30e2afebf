using Vmm.Interop;
using Vmm.Storage.Nbd;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Nbd;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>
/// Disks of images and of servers that are copied while they are used, in real files: qemu-img says whether both are the same.
/// </summary>
public sealed class ImageMirrorTests : IDisposable
{
    private const int Size = (24 << 20) + 512;

    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-mirror-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    public static TheoryData<string, string, int, DiskCacheMode> Pairs => new()
    {
        { "chain", "raw", 1, DiskCacheMode.Direct },
        { "chain", "qcow2", 2, DiskCacheMode.Direct },
        { "chain", "qcow2", 4, DiskCacheMode.Buffered },
        { "chain", "top", 1, DiskCacheMode.Buffered },
        { "chain", "top", 4, DiskCacheMode.Direct },
        { "raw", "qcow2", 2, DiskCacheMode.Direct },
    };

    [Theory]
    [MemberData(nameof(Pairs))]
    public void Both_files_are_the_same_after_random_writes_of_any_number_of_queues(
        string from, string to, int queues, DiskCacheMode cache)
    {
        string source = Source(from), target = Target(to);
        using (DiskMirror mirror = new(Open(source, cache), Open(target, cache), topOnly: to == "top"))
        {
            mirror.Start(bytesPerSecond: 24 << 20);
            Writers writers = new(mirror, queues, 5, Size) { Discards = false }; // which one of two may pass over
            writers.RunUntil(() => mirror.Report.State == MirrorState.Mirrored);
            writers.RunFor(100);
            writers.Dispose();
            Assert.Null(mirror.Report.Problem);
        }

        Same(source, target);
    }

    /// <summary>A terabyte of nothing takes no time, and no space.</summary>
    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public void What_is_not_allocated_is_neither_read_nor_written(string to)
    {
        const ulong size = 1ul << 40;
        string source = At("empty.qcow2"), target = At("target." + to);
        Qcow2Creator.Create(source, new Qcow2CreateOptions { DiskSize = size });
        QemuImg.Start("qemu-io", ["-f", "qcow2", "-c", "write -P 7 700G 128k", "-c", "write -z 300G 1M", source]);
        QemuImg.Run("create", "-q", "-f", to, target, $"{size}");
        using (DiskMirror mirror = new(Open(source), Open(target)))
        {
            Copy(mirror);
            Assert.Equal(size, mirror.Report.CopiedBytes);
        }

        Same(source, target);
        using FileDescriptorHandle file = BlockFile.Open(target, writable: false, direct: false);
        Assert.InRange(BlockFile.AllocatedBytes(file), 128ul << 10, 2ul << 20);
    }

    /// <summary>What lies below stays there; what hides it comes along, zeros too.</summary>
    [Fact]
    public void A_copy_of_the_top_has_what_the_top_has_and_nothing_else()
    {
        string source = Source("chain"), target = Target("top");
        using (DiskMirror mirror = new(Open(source), Open(target), topOnly: true))
        {
            Copy(mirror);
        }

        Same(source, target);
        Assert.Equal(Own(source), Own(target));

        // Clusters that are in the top, and whether they are zeros.
        static IEnumerable<(ulong, bool)> Own(string path) => ImageMap.Read(path, "qcow2", ToolProgress.None)
            .Where(extent => extent.Depth == 0)
            .SelectMany(extent => Enumerable.Range(0, (int)((extent.Length + 65535) / 65536))
                .Select(i => ((extent.Start / 65536) + (ulong)i, extent.Kind == DiskExtentKind.Zero)));
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("chain")]
    public void A_target_over_other_images_is_no_place_for_the_top(string from)
    {
        string source = Source(from), other = At("other.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", At("base.raw"), "-F", "raw", other, $"{Size}");
        using IDiskBackend one = Open(source), two = Open(other);
        BlockException refused = Assert.Throws<BlockException>(() => new DiskMirror(one, two, topOnly: true));
        Assert.Contains("does not stand on the images that the disk stands on", refused.Message, StringComparison.Ordinal);
    }

    [NbdFact("qemu-nbd")]
    public void A_disk_goes_from_a_server_to_an_image_and_to_a_server_again()
    {
        string served = Source("raw"), image = Target("qcow2"), back = At("back.raw");
        File.WriteAllBytes(back, Enumerable.Repeat((byte)9, Size).ToArray()); // what was there does not matter
        using (NbdServer server = NbdServer.Qemu(served))
        {
            Run(server.Open(new NbdOptions { Name = "served" }), Open(image));
        }

        Same(served, image);
        using (NbdServer server = NbdServer.Qemu(back))
        {
            Run(Open(image), server.Open(new NbdOptions { Name = "back" }));
        }

        Same(image, back);

        static void Run(IDiskBackend from, IDiskBackend to)
        {
            using DiskMirror mirror = new(from, to);
            mirror.Start();
            Writers writers = new(mirror, 2, 3, Size) { Discards = false };
            writers.RunUntil(() => mirror.Report.State == MirrorState.Mirrored);
            writers.RunFor(50);
            writers.Dispose();
            Assert.Null(mirror.Report.Problem);
        }
    }

    /// <summary>Nobody went through it in the end: the source stays, and the target is closed behind the last node.</summary>
    [Fact]
    public void A_mirror_that_is_abandoned_goes_with_its_last_node()
    {
        using UnsteadyDisk source = new(Size), target = new(Size);
        DiskMirror mirror = new(source, target);
        using DiskDriver driver = new(mirror), other = new(mirror);
        mirror.Abandon();
        driver.Node.Dispose();
        Assert.False(target.IsClosed);
        other.Node.Dispose();
        Assert.Equal((true, false), (target.IsClosed, source.IsClosed));
        using UnsteadyDisk unused = new(Size);
        new DiskMirror(source, unused).Abandon();
        Assert.True(unused.IsClosed);
    }

    private static void Copy(DiskMirror mirror)
    {
        mirror.Start();
        Assert.True(SpinWait.SpinUntil(
            () => mirror.Report is { State: MirrorState.Mirrored } or { Problem: not null }, s_soon), mirror.Report.ToString());
        Assert.Null(mirror.Report.Problem);
    }

    private static void Same(string one, string other)
    {
        QemuImg.Run("compare", "-f", FormatOf(one), "-F", FormatOf(other), one, other);
        foreach (string image in new[] { one, other }.Where(path => FormatOf(path) == "qcow2"))
        {
            QemuImg.Run("check", "-q", "-f", "qcow2", image);
        }
    }

    private static string FormatOf(string path) => Path.GetExtension(path) == ".raw" ? "raw" : "qcow2";

    private static IDiskBackend Open(string path, DiskCacheMode cache = DiskCacheMode.Buffered)
    {
        RawFileOptions options = new() { Cache = cache };
        return FormatOf(path) == "raw" ? RawFileBackend.Open(path, options) : DiskImageChain.Open(path, options).ToDisk();
    }

    private string At(string name) => Path.Combine(_folder, name);

    // A shorter raw base with data and a hole, an image over it, and a top that hides some of both with data and zeros.
    private string Source(string kind)
    {
        byte[] data = new byte[Size / 1024 * 512];
        new Random(3).NextBytes(data.AsSpan(0, data.Length / 2));
        File.WriteAllBytes(At("base.raw"), data);
        if (kind == "raw")
        {
            File.WriteAllBytes(At("disk.raw"), [.. data, .. new byte[Size - data.Length]]);
            return At("disk.raw");
        }

        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", At("base.raw"), "-F", "raw", At("middle.qcow2"), $"{Size}");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", At("middle.qcow2"), "-F", "qcow2", At("top.qcow2"), $"{Size}");
        Io("middle.qcow2", "write -P 1 1M 300k", "write -P 2 20M 1M", "write -z 3M 512k");
        Io("top.qcow2", "write -P 3 1100k 70k", "write -z 2M 256k", "write -c -P 4 8M 64k", "write -P 5 16M 2M");
        return At("top.qcow2");

        void Io(string image, params string[] commands) =>
            Crash.QemuJudge.Io(At(image), commands);
    }

    private string Target(string kind)
    {
        string path = At(kind == "raw" ? "target.raw" : "target.qcow2");
        string[] below = kind == "top" ? ["-b", At("middle.qcow2"), "-F", "qcow2"] : [];
        QemuImg.Run(["create", "-q", "-f", FormatOf(path), .. below, path, $"{Size}"]);
        return path;
    }
}
