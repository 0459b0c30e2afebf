using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

[Collection(Scratch.Alone)]
public sealed class ImageChainTests
{
    private const ulong MiB = 1 << 20;

    [Fact]
    public void A_backing_file_of_no_format_is_refused_with_what_to_do()
    {
        using Scratch scratch = new();
        Qcow2Creator.Create(scratch["base"], new() { DiskSize = MiB });
        Overlay(scratch["top"], "base");
        ImageRebase.Rename(scratch["top"], "base", null);
        string message = Refused(scratch["top"]);
        Assert.Contains("not guessed", message, StringComparison.Ordinal);
        Assert.Contains("vmmctl disk rebase --unsafe --backing base", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_raw_disk_with_an_image_in_its_first_sectors_stays_raw()
    {
        using Scratch scratch = new();
        Qcow2Creator.Create(scratch["fake"], new() { DiskSize = MiB, BackingFile = "/etc/shadow", BackingFormat = "raw" });
        Qcow2Creator.Create(scratch["top"], new() { DiskSize = MiB, BackingFile = "fake", BackingFormat = "raw" });
        Assert.Equal(["qcow2", "raw"], ImageChainInfo.Read(scratch["top"], "qcow2").Select(i => i.Format));
        using ImageChain chain = ImageChain.Open(scratch["top"], "qcow2");
        byte[] first = new byte[4];
        chain.Read(first, 0);
        Assert.Equal("QFI\u00fb", string.Concat(first.Select(b => (char)b)));
    }

    [Fact]
    public void A_loop_is_found_under_any_name()
    {
        using Scratch scratch = new();
        Overlay(scratch["a"], "b");
        Overlay(scratch["b"], "./link");
        File.CreateSymbolicLink(scratch["link"], "a");
        Assert.Contains("in its own chain", Refused(scratch["a"]), StringComparison.Ordinal);
        Overlay(scratch["self"], "self");
        Assert.Contains("in its own chain", Refused(scratch["self"]), StringComparison.Ordinal);
        File.CreateSymbolicLink(scratch["round"], "round");
        Overlay(scratch["top"], "round");
        Assert.Contains("round", Refused(scratch["top"]), StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_base_is_named()
    {
        using Scratch scratch = new();
        Overlay(scratch["top"], "gone");
        Assert.Contains(scratch["gone"] + " does not exist", Refused(scratch["top"]), StringComparison.Ordinal);
    }

    [Fact]
    public void Two_hundred_images_are_a_chain_and_one_more_is_refused()
    {
        using Scratch scratch = new();
        Qcow2Creator.Create(scratch["0"], new() { DiskSize = MiB });
        for (int i = 1; i <= 200; i++)
        {
            Overlay(scratch[$"{i}"], $"{i - 1}");
        }

        int before = Directory.GetFiles("/proc/self/fd").Length;
        Assert.Equal(200, ImageChainInfo.Read(scratch["199"], "qcow2").Count);
        Assert.Contains("more than 200 images", Refused(scratch["200"]), StringComparison.Ordinal);
        Assert.InRange(Directory.GetFiles("/proc/self/fd").Length, 0, before + 20);
    }

    [Fact]
    public void A_base_that_shrank_reads_as_zeros_behind_its_end_and_a_cut_image_is_damaged()
    {
        using Scratch scratch = new();
        File.WriteAllBytes(scratch["base"], Enumerable.Repeat((byte)7, 1 << 20).ToArray());
        Qcow2Creator.Create(scratch["top"], new() { DiskSize = MiB, BackingFile = "base", BackingFormat = "raw" });
        using (FileStream shorter = File.OpenWrite(scratch["base"]))
        {
            shorter.SetLength(1000);
        }

        using (ImageChain chain = ImageChain.Open(scratch["top"], "qcow2"))
        {
            byte[] bytes = new byte[4096];
            chain.Read(bytes, 0);
            Assert.Equal((1000, 3096), (bytes.Count(b => b == 7), bytes.Count(b => b == 0)));
        }

        ImageConvert.Run(scratch["top"], scratch["cut"], new() { SourceFormat = "qcow2", TargetFormat = "qcow2" });
        using (FileStream shorter = File.OpenWrite(scratch["cut"]))
        {
            shorter.SetLength(2 * 65536);
        }

        using ImageChain cut = ImageChain.Open(scratch["cut"], "qcow2");
        BlockException error = Assert.Throws<BlockException>(() => cut.Read(new byte[512], 0));
        Assert.Contains("vmmctl disk check", error.Message, StringComparison.Ordinal);
    }

    private static void Overlay(string path, string backing) =>
        Qcow2Creator.Create(path, new() { DiskSize = MiB, BackingFile = backing, BackingFormat = "qcow2" });

    private static string Refused(string path) =>
        Assert.Throws<BlockException>(() => ImageChainInfo.Read(path, "qcow2")).Message;
}
