using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>How the images of a chain are found: by what each says of the one below it, which may be anything.</summary>
public sealed class ImageChainTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-ch-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Every_image_is_opened_in_order_only_the_top_to_write()
    {
        Directory.CreateDirectory(At("bases"));
        Image("create -f raw bases/root.img 1M");
        Image("create -f qcow2 -F raw -b root.img bases/middle.img"); // relative to the folder of the image that names it
        Image($"create -f qcow2 -F qcow2 -b {At("bases/middle.img")} top.img");
        using DiskImageChain chain = Open("top.img");
        Assert.Equal([ImageFormat.Qcow2, ImageFormat.Qcow2, ImageFormat.Raw], chain.Images.Select(image => image.Format));
        Assert.Equal([At("top.img"), At("bases/middle.img"), At("bases/root.img")], chain.Images.Select(image => image.File.Path));
        Assert.Equal([false, true, true], chain.Images.Select(image => image.File.Geometry.ReadOnly));
    }

    [Fact]
    public void An_image_that_is_only_read_has_nothing_that_is_written()
    {
        Image("create -f qcow2 base.img 1M");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        using DiskImageChain chain = DiskImageChain.Open(At("top.img"), new RawFileOptions { ReadOnly = true });
        Assert.All(chain.Images, image => Assert.True(image.File.Geometry.ReadOnly));
        using DiskImageChain other = DiskImageChain.Open(At("top.img"), new RawFileOptions { ReadOnly = true });
    }

    [Fact]
    public void A_chain_closes_what_it_opened_also_when_it_is_refused()
    {
        Image("create -f qcow2 base.img 1M");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        Open("top.img").Dispose();
        File.Move(At("base.img"), At("gone.img"));
        Refused("top.img", BlockErrorKind.NotFound);
        File.Move(At("gone.img"), At("base.img"));
        RawFileOptions image = new() { IsImage = true };
        RawFileBackend.Open(At("top.img"), image).Dispose(); // no lock is left
        RawFileBackend.Open(At("base.img"), image).Dispose();
    }

    [Fact]
    public void A_format_that_is_not_said_is_not_guessed()
    {
        Image("create -f qcow2 base.img 1M");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        Patch("top.img", bytes => BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(Find(bytes, 0xe2792aca)), 0x12345678));
        string said = Refused("top.img", BlockErrorKind.NotADisk);
        Assert.Contains(At("top.img"), said, StringComparison.Ordinal);
        Assert.Contains("base.img", said, StringComparison.Ordinal);
        Assert.Contains("qemu-img rebase -u -F", said, StringComparison.Ordinal);
    }

    [Fact]
    public void A_base_of_another_format_than_said_is_refused_or_raw_as_said()
    {
        Image("create -f raw base.img 1M");
        Image("create -f qcow2 -F raw -b base.img top.img");
        File.WriteAllBytes(At("base.img"), [.. "QFI\u00fb"u8[..3], 0xfb, .. new byte[(1 << 20) - 4]]); // as a guest may have written
        using (DiskImageChain chain = Open("top.img"))
        {
            Assert.Equal(ImageFormat.Raw, chain.Images[1].Format);
        }

        Patch("top.img", bytes => "qcow2"u8.CopyTo(bytes.AsSpan(ReplaceFormatLength(bytes, 5))));
        Assert.Contains(At("top.img"), Refused("top.img", BlockErrorKind.NotADisk), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("vmdk", "of format \"vmdk\"")]
    [InlineData("qcow", "of format \"qcow\"")]
    public void A_format_that_is_not_known_is_named(string format, string said)
    {
        Image("create -f raw base.img 1M");
        Image("create -f qcow2 -F raw -b base.img top.img");
        Patch("top.img", bytes => System.Text.Encoding.ASCII.GetBytes(format).CopyTo(
            bytes.AsSpan(ReplaceFormatLength(bytes, (uint)format.Length))));
        Assert.Contains(said, Refused("top.img", BlockErrorKind.NotADisk), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nbd://host/x")]
    [InlineData("json:{\"driver\":\"file\"}")]
    [InlineData("fat:rw:/etc")]
    [InlineData("file:base.img")]
    public void What_is_no_file_is_not_opened(string name)
    {
        Image("create -f raw base.img 1M");
        Image($"create -f qcow2 -F raw -b {At("base.img")} top.img");
        Rename("top.img", name);
        Assert.Contains("which is no file", Refused("top.img", BlockErrorKind.NotADisk), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a\nb")]
    [InlineData("\u001b[2Jx")]
    [InlineData("\u00ff\u00fe")] // read as UTF-8 below: Latin-1 bytes are none
    public void A_name_that_no_file_should_have_is_refused_and_not_repeated(string name)
    {
        Image("create -f raw base.img 1M");
        Image($"create -f qcow2 -F raw -b {At("base.img")} top.img");
        Rename("top.img", name);
        string said = Refused("top.img", BlockErrorKind.NotADisk);
        Assert.DoesNotContain(said, char.IsControl);
    }

    [Fact]
    public void A_loop_is_told_with_both_names()
    {
        Image("create -f qcow2 a.img 1M");
        Image("create -f qcow2 -F qcow2 -b a.img b.img");
        Image("rebase -u -F qcow2 -b b.img a.img");
        string said = Refused("b.img", BlockErrorKind.NotADisk);
        Assert.Contains(At("a.img"), said, StringComparison.Ordinal);
        Assert.Contains(At("b.img"), said, StringComparison.Ordinal);
        Assert.Contains("loop", said, StringComparison.Ordinal);
        Image("create -f qcow2 self.img 1M");
        Image("rebase -u -F qcow2 -b self.img self.img");
        Assert.Contains("loop", Refused("self.img", BlockErrorKind.NotADisk), StringComparison.Ordinal);
        File.CreateSymbolicLink(At("link.img"), At("b.img"));
        Image("rebase -u -F qcow2 -b link.img a.img");
        Assert.Contains("loop", Refused("b.img", BlockErrorKind.NotADisk), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(199, true)]
    [InlineData(200, false)]
    public void A_chain_of_200_is_opened_and_a_longer_one_refused(int below, bool opens)
    {
        Image("create -f qcow2 0.img 1M");
        byte[] bottom = File.ReadAllBytes(At("0.img"));
        Image("create -f qcow2 -F qcow2 -b 0000.img x.img 1M -u");
        byte[] overlay = File.ReadAllBytes(At("x.img"));
        File.WriteAllBytes(At("0000.img"), bottom);
        int at = overlay.AsSpan().IndexOf("0000.img"u8);
        for (int i = 1; i <= below; i++)
        {
            System.Text.Encoding.ASCII.GetBytes($"{i - 1:0000}.img").CopyTo(overlay, at);
            File.WriteAllBytes(At($"{i:0000}.img"), overlay);
        }

        if (opens)
        {
            using DiskImageChain chain = Open($"{below:0000}.img");
            Assert.Equal(below + 1, chain.Images.Count);
        }
        else
        {
            string said = Refused($"{below:0000}.img", BlockErrorKind.NotADisk);
            Assert.Contains("a chain of more than 200 images", said, StringComparison.Ordinal);
            Assert.Contains(At($"{below:0000}.img"), said, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_base_that_is_missing_or_was_cut_is_named_with_the_image_above_it()
    {
        Image("create -f qcow2 base.img 1G");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        using (FileStream cut = File.OpenWrite(At("base.img")))
        {
            cut.SetLength(65536 + 512);
        }

        Named(Refused("top.img", BlockErrorKind.BadSize), "it was cut");
        File.WriteAllBytes(At("base.img"), []);
        Named(Refused("top.img", BlockErrorKind.NotADisk), "is not a qcow2 image");
        File.Delete(At("base.img"));
        Named(Refused("top.img", BlockErrorKind.NotFound), "does not exist");
        Directory.CreateDirectory(At("base.img"));
        Named(Refused("top.img", BlockErrorKind.NotADisk), "is a directory");
        Directory.Delete(At("base.img"));
        File.CreateSymbolicLink(At("base.img"), "/dev/zero");
        Named(Refused("top.img", BlockErrorKind.NotADisk), "is neither a file nor a block device");
        File.Delete(At("base.img"));
        Image("create -f raw base.img 1M");
        Image("rebase -u -F raw -b base.img top.img");
        File.WriteAllBytes(At("base.img"), []);
        Named(Refused("top.img", BlockErrorKind.BadSize), "is empty");
    }

    [Fact]
    public void A_file_is_opened_by_the_callers_rule_only()
    {
        Image("create -f qcow2 base.img 1M");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        List<(string, bool)> asked = [];
        BlockException refused = Assert.Throws<BlockException>(() => DiskImageChain.Open(At("top.img"), new RawFileOptions(), Open));
        Assert.Equal([(At("top.img"), true), (At("base.img"), false)], asked);
        Assert.Contains("not allowed", refused.Message, StringComparison.Ordinal);
        Assert.Contains(At("top.img"), refused.Message, StringComparison.Ordinal);

        FileDescriptorHandle Open(string path, bool writable)
        {
            asked.Add((path, writable));
            return path == At("top.img") ? BlockFile.Open(path, writable, direct: false)
                : throw new BlockException(BlockErrorKind.AccessDenied, $"disk {path} is not allowed");
        }
    }

    /// <summary>A hostile header opens nothing but through the opener, and ends in an error that names it or in a chain.</summary>
    [Fact]
    public void A_header_of_any_bytes_is_refused_by_name_or_opened()
    {
        Image("create -f qcow2 base.img 1M");
        Image("create -f qcow2 -F qcow2 -b base.img top.img");
        byte[] sound = File.ReadAllBytes(At("top.img"));
        Random random = new(14);
        int opened = 0, refused = 0;
        for (int round = 0; round < 3000; round++)
        {
            byte[] bytes = (byte[])sound.Clone();
            int changes = random.Next(1, 6);
            for (int i = 0; i < changes; i++)
            {
                bytes[random.Next(0, 600)] = (byte)(random.Next(3) switch { 0 => 0, 1 => 255, _ => random.Next(256) });
            }

            File.WriteAllBytes(At("top.img"), random.Next(10) == 0 ? bytes[..random.Next(0, 700)] : bytes);
            long before = GC.GetAllocatedBytesForCurrentThread();
            try
            {
                Open("top.img").Dispose();
                opened++;
            }
            catch (BlockException said)
            {
                Assert.Contains(At("top.img"), said.Message, StringComparison.Ordinal);
                refused++;
            }

            Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 16 << 20, "an image's word is no reason to take memory");
        }

        Assert.True(opened > 100 && refused > 100, $"opened {opened}, refused {refused}");
    }

    private static void Named(string said, string why)
    {
        Assert.Contains("/base.img ", said, StringComparison.Ordinal);
        Assert.Contains(why, said, StringComparison.Ordinal);
        Assert.Contains("top.img)", said, StringComparison.Ordinal);
    }

    private string At(string name) => Path.Combine(_folder, name);

    private DiskImageChain Open(string name) => DiskImageChain.Open(At(name), new RawFileOptions());

    private string Refused(string name, BlockErrorKind kind)
    {
        BlockException refused = Assert.Throws<BlockException>(() => Open(name));
        Assert.Equal(kind, refused.Kind);
        return refused.Message;
    }

    private void Image(string words) => QemuImg.Run(
    [
        .. words.Split(' ').Select(
            word => word.Contains(".img", StringComparison.Ordinal) && !InBackingName(words, word) ? At(word) : word),
    ]);

    // The name of a backing file is written as it is said.
    private static bool InBackingName(string words, string word) => words.Contains("-b " + word, StringComparison.Ordinal)
        && !words.EndsWith(" " + word, StringComparison.Ordinal);

    private void Patch(string name, Action<byte[]> change)
    {
        byte[] bytes = File.ReadAllBytes(At(name));
        change(bytes);
        File.WriteAllBytes(At(name), bytes);
    }

    // Bytes of the name, Latin-1: what is not ASCII is no UTF-8.
    private void Rename(string name, string backing) => Patch(name, bytes =>
    {
        byte[] text = System.Text.Encoding.Latin1.GetBytes(backing);
        int at = (int)BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(8));
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(16), (uint)text.Length);
        text.CopyTo(bytes, at);
    });

    private static int Find(byte[] bytes, uint extension)
    {
        Span<byte> type = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(type, extension);
        return bytes.AsSpan(0, 1024).IndexOf(type);
    }

    // Where the text of the backing format is, after its length was changed to one that needs no other padding.
    private static int ReplaceFormatLength(byte[] bytes, uint length)
    {
        int at = Find(bytes, 0xe2792aca);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(at + 4), length);
        return at + 8;
    }
}
