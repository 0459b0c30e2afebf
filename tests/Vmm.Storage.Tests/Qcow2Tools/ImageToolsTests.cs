using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

[Collection(Scratch.Alone)]
public sealed class ImageToolsTests
{
    private const ulong MiB = 1 << 20;

    public static TheoryData<int, bool, Qcow2CreateOptions> Targets() => new()
    {
        { 0, false, new() { DiskSize = 512 } },
        { 1, false, new() { DiskSize = 512, ClusterBits = 12, RefcountOrder = 6 } },
        { 2, true, new() { DiskSize = 512 } },
        { 1, true, new() { DiskSize = 512, Compression = Qcow2Compression.Zstd } },
        { 4, true, new() { DiskSize = 512, ClusterBits = 9, RefcountOrder = 0 } },
        { 3, true, new() { DiskSize = 512, ClusterBits = 21, RefcountOrder = 1, Compression = Qcow2Compression.Zstd } },
        { 0, false, new() { DiskSize = 512, ExtendedL2 = true, ClusterBits = 17 } },
    };

    [QemuTheory]
    [MemberData(nameof(Targets))]
    public void A_converted_image_has_every_byte(int kind, bool compress, Qcow2CreateOptions like)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["source"], kind);
        ConvertOptions options = new() { SourceFormat = "qcow2", TargetFormat = "qcow2", Target = like, Compress = compress };
        ImageConvert.Run(scratch["source"], scratch["target"], options);
        Assert.Equal(0, QemuImg.Check(scratch["target"]).ExitCode);
        Same(scratch["source"], "qcow2", scratch["target"], "qcow2");
        ImageConvert.Run(scratch["target"], scratch["raw"], new() { SourceFormat = "qcow2", TargetFormat = "raw" });
        Same(scratch["source"], "qcow2", scratch["raw"], "raw");
        ImageConvert.Run(scratch["raw"], scratch["back"], new() { SourceFormat = "raw", TargetFormat = "qcow2" });
        Same(scratch["raw"], "raw", scratch["back"], "qcow2");
        Assert.Equal(0, QemuImg.Check(scratch["back"]).ExitCode);
        if (compress)
        {
            ImageConvert.Run(scratch["source"], scratch["plain"], options with { Compress = false });
            Assert.True(new FileInfo(scratch["target"]).Length <= new FileInfo(scratch["plain"]).Length);
        }
    }

    [QemuFact]
    public void A_chain_made_half_by_qemu_is_flattened_and_mapped()
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["0"], 1);
        for (int i = 1; i <= 16; i++)
        {
            if (i % 2 == 0)
            {
                QemuImg.Do("create", "-f", "qcow2", "-b", $"{i - 1}", "-F", "qcow2", scratch[$"{i}"]);
            }
            else
            {
                Qcow2Creator.Create(
                    scratch[$"{i}"], new() { DiskSize = 8 * MiB, ExtendedL2 = i == 5, BackingFile = $"{i - 1}", BackingFormat = "qcow2" });
            }

            Damage.Write(scratch[$"{i}"], $"write -P {i} {i * 300}k 70k", $"write -z {i * 400}k 10k");
        }

        ImageConvert.Run(scratch["16"], scratch["flat"], new() { SourceFormat = "qcow2", TargetFormat = "qcow2" });
        Same(scratch["16"], "qcow2", scratch["flat"], "qcow2");
        Assert.Equal(17, ImageChainInfo.Read(scratch["16"], "qcow2").Count);
        DiskExtent[] map = [.. ImageMap.Read(scratch["16"], "qcow2", ToolProgress.None)];
        Assert.Equal(8 * MiB, map.Aggregate(0ul, (sum, e) => e.Start == sum ? sum + e.Length : ulong.MaxValue));
        Assert.Contains(map, e => e is { Depth: 0, Kind: DiskExtentKind.Data });
        Assert.Contains(map, e => e is { Depth: 16, Kind: DiskExtentKind.Compressed });
        Assert.Contains(map, e => e.Kind == DiskExtentKind.Zero);
    }

    [QemuTheory]
    [InlineData("64k", "qcow2", false)]
    [InlineData("512", "raw", false)]
    [InlineData("64k", "qcow2", true)]
    public void A_rebased_image_has_the_same_disk(string cluster, string format, bool extended)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["one"], 1);
        QemuImg.Do("convert", "-f", "qcow2", "-O", format, scratch["one"], scratch["two"]);
        Damage.WriteAs(format, scratch["two"], "write -P 9 100k 50k", "write -z 1M 100k", "write -P 8 5M 1M");
        string options = $"cluster_size={cluster}" + (extended ? ",extended_l2=on" : "");
        QemuImg.Do("create", "-f", "qcow2", "-o", options, "-b", "one", "-F", "qcow2", scratch["top"], "9M");
        Damage.Write(scratch["top"], "write -P 77 90k 30k", "write -P 78 5200k 10k", "write -z 6M 3k");
        QemuImg.Do("convert", "-f", "qcow2", "-O", "raw", scratch["top"], scratch["want"]);
        ImageRebase.Run(scratch["top"], "two", format);
        Same(scratch["want"], "raw", scratch["top"], "qcow2");
        ImageRebase.Run(scratch["top"], null, null);
        Same(scratch["want"], "raw", scratch["top"], "qcow2");
        Assert.Equal(0, QemuImg.Check(scratch["top"]).ExitCode);
        Assert.DoesNotContain("backing", QemuImg.Do("info", scratch["top"]), StringComparison.Ordinal);
    }

    [QemuFact]
    public void An_unsafe_rebase_changes_the_name_only()
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["one"], 0);
        File.Copy(scratch["one"], scratch["moved"]);
        QemuImg.Do("create", "-f", "qcow2", "-b", "one", "-F", "qcow2", scratch["top"]);
        ImageRebase.Rename(scratch["top"], "moved", "qcow2");
        Assert.Contains("backing file: moved", QemuImg.Do("info", scratch["top"]), StringComparison.Ordinal);
        Assert.Equal(0, QemuImg.Check(scratch["top"]).ExitCode);
        Same(scratch["one"], "qcow2", scratch["top"], "qcow2");
    }

    [QemuTheory]
    [InlineData("cluster_size=64k", 8 * MiB, 12 * MiB)]
    [InlineData("cluster_size=512", 8 * MiB, 800 * MiB)]
    [InlineData("cluster_size=4k,refcount_bits=1", (8 * MiB) + 1536, 9 * MiB)]
    [InlineData("cluster_size=64k,extended_l2=on", (8 * MiB) + 512, 8000 * MiB)]
    public void A_grown_disk_has_zeros_behind_its_old_end(string options, ulong old, ulong size)
    {
        using Scratch scratch = new();
        Damage.MakeImage(scratch["base"], 1);
        QemuImg.Do("resize", "-f", "qcow2", scratch["base"], "8M");
        QemuImg.Do("convert", "-f", "qcow2", "-O", "raw", scratch["base"], scratch["long"]);
        using (FileStream longer = File.OpenWrite(scratch["long"]))
        {
            longer.Seek(0, SeekOrigin.End);
            longer.Write(Enumerable.Repeat((byte)0xee, 3 << 20).ToArray());
        }

        QemuImg.Do("create", "-f", "qcow2", "-o", options, "-b", "long", "-F", "raw", scratch["top"], $"{old}");
        Damage.Write(scratch["top"], "write -P 1 1M 100k", $"write -P 3 {old - 512} 512");
        QemuImg.Do("convert", "-f", "qcow2", "-O", "raw", scratch["top"], scratch["want"]);
        using (FileStream want = File.OpenWrite(scratch["want"]))
        {
            want.SetLength((long)size);
        }

        ImageResize.Run(scratch["top"], "qcow2", size, shrink: false);
        Assert.Equal(0, QemuImg.Check(scratch["top"]).ExitCode);
        Same(scratch["want"], "raw", scratch["top"], "qcow2");
    }

    [QemuFact]
    public void A_disk_becomes_smaller_only_when_told_and_where_nothing_is_mapped()
    {
        using Scratch scratch = new();
        QemuImg.Do("create", "-f", "qcow2", "-o", "cluster_size=4k", scratch["disk"], "16M");
        Damage.Write(scratch["disk"], "write -P 1 0 1M", "write -P 2 9M 4k", "write -z 12M 1M");
        Assert.Contains("--shrink", Refused(scratch["disk"], 10 * MiB, false), StringComparison.Ordinal);
        Assert.Contains("data at byte 9437184", Refused(scratch["disk"], 8 * MiB, true), StringComparison.Ordinal);
        Assert.Contains("whole clusters", Refused(scratch["disk"], (10 * MiB) + 512, true), StringComparison.Ordinal);
        QemuImg.Do("convert", "-f", "qcow2", "-O", "raw", scratch["disk"], scratch["want"]);
        using (FileStream want = File.OpenWrite(scratch["want"]))
        {
            want.SetLength(10 << 20);
        }

        ImageResize.Run(scratch["disk"], "qcow2", 10 * MiB, shrink: true);
        Assert.Equal(0, QemuImg.Check(scratch["disk"]).ExitCode);
        Same(scratch["want"], "raw", scratch["disk"], "qcow2");
        ImageResize.Run(scratch["want"], "raw", 20 * MiB, shrink: false);
        Assert.Contains("data at byte", Assert.Throws<BlockException>(
            () => ImageResize.Run(scratch["want"], "raw", 9 * MiB, shrink: true)).Message, StringComparison.Ordinal);
        ImageResize.Run(scratch["want"], "raw", 12 * MiB, shrink: true);
        Assert.Equal(12 << 20, new FileInfo(scratch["want"]).Length);
    }

    [Fact]
    public void A_tool_that_is_cancelled_leaves_no_target()
    {
        using Scratch scratch = new();
        using CancellationTokenSource cancel = new();
        File.WriteAllBytes(scratch["raw"], Enumerable.Repeat((byte)1, 4 << 20).ToArray());
        ToolProgress progress = new(done => _ = done > 0.5 && Cancel(cancel), cancel.Token);
        Assert.Throws<OperationCanceledException>(() => ImageConvert.Run(
            scratch["raw"], scratch["target"], new() { SourceFormat = "raw", TargetFormat = "qcow2" }, progress));
        Assert.Equal([scratch["raw"]], Directory.GetFiles(Path.GetDirectoryName(scratch["raw"])!));
    }

    private static bool Cancel(CancellationTokenSource source)
    {
        source.Cancel();
        return true;
    }

    private static string Refused(string path, ulong size, bool shrink) =>
        Assert.Throws<BlockException>(() => ImageResize.Run(path, "qcow2", size, shrink)).Message;

    private static void Same(string one, string format, string other, string otherFormat) =>
        QemuImg.Do("compare", "-f", format, "-F", otherFormat, one, other);
}
