using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

[Collection(Scratch.Alone)]
public sealed class Qcow2CreatorTests
{
    private const ulong MiB = 1 << 20;

    [QemuTheory]
    [InlineData(16, 4, false, 1024, Qcow2Compression.Deflate)]
    [InlineData(9, 4, false, 64, Qcow2Compression.Deflate)]
    [InlineData(21, 0, false, 1 << 20, Qcow2Compression.Deflate)]
    [InlineData(16, 6, true, 4096, Qcow2Compression.Zstd)]
    [InlineData(14, 5, true, 3, Qcow2Compression.Deflate)]
    [InlineData(12, 3, false, 8192, Qcow2Compression.Zstd)]
    public void A_new_image_is_one_that_qemu_reads(
        int clusterBits, int order, bool extended, int mebibytes, Qcow2Compression compression)
    {
        using Scratch scratch = new();
        Qcow2Creator.Create(scratch["new"], new Qcow2CreateOptions
        {
            DiskSize = (ulong)mebibytes * MiB,
            ClusterBits = clusterBits,
            RefcountOrder = order,
            ExtendedL2 = extended,
            Compression = compression,
        });
        Assert.Equal(0, QemuImg.Check(scratch["new"]).ExitCode);
        string info = QemuImg.Do("info", "--output=json", scratch["new"]);
        Assert.Contains($"\"virtual-size\": {(ulong)mebibytes * MiB}", info, StringComparison.Ordinal);
        Assert.Contains($"\"cluster-size\": {1 << clusterBits}", info, StringComparison.Ordinal);
        Assert.Contains($"\"refcount-bits\": {1 << order}", info, StringComparison.Ordinal);
        Assert.Contains($"\"extended-l2\": {(extended ? "true" : "false")}", info, StringComparison.Ordinal);
        using RawImageFile file = ImageFiles.Open(scratch["new"], writable: false);
        Assert.True(Qcow2Check.Run(file).IsClean);
    }

    [QemuFact]
    public void The_backing_file_is_named_with_its_format()
    {
        using Scratch scratch = new();
        Qcow2Creator.Create(scratch["base"], new Qcow2CreateOptions { DiskSize = MiB });
        Qcow2Creator.Create(
            scratch["top"], new Qcow2CreateOptions { DiskSize = MiB, BackingFile = "base", BackingFormat = "qcow2", LazyRefcounts = true });
        string info = QemuImg.Do("info", "--output=json", "--backing-chain", scratch["top"]);
        Assert.Contains("\"backing-filename-format\": \"qcow2\"", info, StringComparison.Ordinal);
        Assert.Contains("\"full-backing-filename\": \"" + scratch["base"], info, StringComparison.Ordinal);
        using RawImageFile file = ImageFiles.Open(scratch["top"], writable: false);
        Qcow2Info own = Qcow2Info.Read(file);
        Assert.Equal(("base", "qcow2"), (own.Header.BackingFile, own.Header.BackingFormat));
        Assert.Equal(Qcow2Compatible.LazyRefcounts, own.Header.Compatible);
    }

    public static TheoryData<Qcow2CreateOptions, string> Impossible() => new()
    {
        { new() { DiskSize = 0 }, "whole sectors" },
        { new() { DiskSize = 1000 }, "whole sectors" },
        { new() { DiskSize = MiB, ClusterBits = 22 }, "from 512 bytes to 2 MiB" },
        { new() { DiskSize = MiB, ClusterBits = 13, ExtendedL2 = true }, "16 KiB or more" },
        { new() { DiskSize = MiB, RefcountOrder = 7 }, "1, 2, 4, 8, 16, 32 or 64" },
        { new() { DiskSize = MiB, BackingFile = "a" }, "never guessed" },
        { new() { DiskSize = MiB, BackingFile = "a", BackingFormat = "vmdk" }, "raw and qcow2" },
        { new() { DiskSize = 1ul << 60 }, "too large for clusters" },
    };

    [Theory]
    [MemberData(nameof(Impossible))]
    public void What_cannot_be_is_refused_and_leaves_nothing(Qcow2CreateOptions options, string why)
    {
        using Scratch scratch = new();
        BlockException error = Assert.Throws<BlockException>(() => Qcow2Creator.Create(scratch["new"], options));
        Assert.Contains(why, error.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(Path.GetDirectoryName(scratch["new"])!));
    }

    [Fact]
    public void A_file_that_exists_is_replaced_only_when_told_and_not_while_it_is_used()
    {
        using Scratch scratch = new();
        File.WriteAllText(scratch["it"], "precious");
        Qcow2CreateOptions options = new() { DiskSize = MiB };
        Assert.Contains("--force", Assert.Throws<BlockException>(() => Qcow2Creator.Create(scratch["it"], options)).Message,
            StringComparison.Ordinal);
        using (ImageFiles.Open(scratch["it"], writable: false))
        {
            BlockException error = Assert.Throws<BlockException>(() => Qcow2Creator.Create(scratch["it"], options, replace: true));
            Assert.Equal(BlockErrorKind.InUse, error.Kind);
        }

        Assert.Equal("precious", File.ReadAllText(scratch["it"]));
        Qcow2Creator.Create(scratch["it"], options, replace: true);
        using RawImageFile file = ImageFiles.Open(scratch["it"], writable: false);
        Assert.Equal(MiB, Qcow2Info.Read(file).Header.DiskSize);
    }

    [Fact]
    public void A_link_stays_one_and_what_is_no_file_is_not_replaced()
    {
        using Scratch scratch = new();
        File.WriteAllText(scratch["real"], "");
        File.CreateSymbolicLink(scratch["link"], "real");
        Qcow2Creator.Create(scratch["link"], new() { DiskSize = MiB }, replace: true);
        Assert.Equal("real", new FileInfo(scratch["link"]).LinkTarget);
        Assert.True(new FileInfo(scratch["real"]).Length > 65536);
        BlockException error = Assert.Throws<BlockException>(
            () => Qcow2Creator.Create("/dev/null", new() { DiskSize = MiB }, replace: true));
        Assert.Equal(BlockErrorKind.NotADisk, error.Kind);
        Assert.Equal(BlockErrorKind.NotADisk, Assert.Throws<BlockException>(
            () => Qcow2Creator.Create("/tmp", new() { DiskSize = MiB }, replace: true)).Kind);
    }

    [Fact]
    public void Until_the_header_is_written_the_file_is_no_image()
    {
        using Scratch scratch = new();
        File.WriteAllBytes(scratch["new"], []);
        using RawImageFile file = ImageFiles.Open(scratch["new"], writable: true);
        Qcow2Builder builder = new(file, new Qcow2CreateOptions { DiskSize = MiB });
        builder.AddData(0, new byte[65536]);
        BlockException error = Assert.Throws<BlockException>(() => Qcow2Check.Run(file));
        Assert.Contains("is not a qcow2 image", error.Message, StringComparison.Ordinal);
        builder.Finish(ToolProgress.None);
        Assert.True(Qcow2Check.Run(file).IsClean);
    }
}
