using System.Buffers.Binary;
using System.IO.Compression;
using Vmm.Machine.Boot;
using static Vmm.Machine.Tests.Boot.KernelFiles;

namespace Vmm.Machine.Tests.Boot;

/// <summary>What is no kernel is named, with what to do; what can boot does, whatever its notes hold.</summary>
public sealed class ForeignPayloadTests : IDisposable
{
    private readonly TestRam _ram = new((0, 64 * Mib));

    public static TheoryData<string, byte[], string> Foreign => new()
    {
        { "empty", [], "is empty" },
        { "gzip", Gzip(Elf(Pattern(600))), "compressed with gzip: unpack it first (gunzip)" },
        { "zstd", [0x28, 0xB5, 0x2F, 0xFD, .. Pattern(100)], "compressed with zstd" },
        { "xz", [0xFD, .. "7zXZ\0"u8, .. Pattern(100)], "compressed with xz" },
        { "cpio", [.. "070701"u8, .. Pattern(200)], "give it as the initrd" },
        { "arm64", At(4096, 56, "ARMd"u8), "Linux kernel for arm64" },
        { "uki", Pe(0x8664, ".linux"), "unified kernel image (UKI)" },
        { "efi", Pe(0x8664, ".text"), "an EFI program, which needs EFI firmware" },
        { "efi arm64", Pe(0xAA64, ".text"), "EFI program for arm64" },
        { "ovmf", At(1 << 20, 40, "_FVH"u8), "firmware image such as OVMF" },
        { "seabios", At(256 << 10, (256 << 10) - 16, [0xEA, 0x5B, 0xE0, 0x00, 0xF0]), "firmware image such as SeaBIOS" },
        { "multiboot", Multiboot(new byte[512]), "a multiboot kernel" },
        { "qcow2", [(byte)'Q', (byte)'F', (byte)'I', 0xFB, .. new byte[600]], "qcow2 disk image" },
        { "gpt", At(1 << 20, 0x200, "EFI PART"u8), "GUID partition table" },
        { "ext4", At(1 << 20, 0x438, [0x53, 0xEF]), "ext4 file system" },
        { "mbr", At(1 << 20, 0x1FE, [0x55, 0xAA]), "disk image with a boot sector" },
        { "text", [.. "#!/bin/sh\nexit 0\n"u8], "neither an ELF file" },
    };

    public void Dispose() => _ram.Dispose();

    [Theory]
    [MemberData(nameof(Foreign))]
    public void What_is_no_kernel_is_named(string kind, byte[] file, string says)
    {
        string message = Assert.Throws<BootException>(() => Boot(file)).Message;
        Assert.True(message.Contains(says, StringComparison.Ordinal), $"{kind}: {message}");
    }

    [Fact]
    public void Programs_that_look_like_kernels_and_kernels_for_others_are_named()
    {
        byte[] lkrn = BzImage(Pattern(4096));
        lkrn[0x206] = 3;
        lkrn[0x207] = 2;
        Assert.Contains("ipxe.lkrn", Assert.Throws<BootException>(() => Boot(lkrn)).Message, StringComparison.Ordinal);
        byte[] arm = Elf(Pattern(600));
        Put16(arm, 18, 183);
        Assert.Contains("AArch64", Assert.Throws<BootException>(() => Boot(arm)).Message, StringComparison.Ordinal);
        Assert.Contains(
            "32-bit ELF file without a PVH note",
            Assert.Throws<BootException>(() => Boot(Elf32(Pattern(600), null))).Message,
            StringComparison.Ordinal);
        Assert.Contains(
            "a multiboot kernel",
            Assert.Throws<BootException>(() => Boot(Elf32(Multiboot(new byte[512]), null))).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_32_bit_ELF_kernel_starts_at_its_pvh_note()
    {
        byte[] code = Pattern(600);
        BootInfo info = Boot(Elf32(code, 0x100_0020));
        Assert.Equal((BootProtocol.Pvh32, 0x100_0020UL), (info.Protocol, info.Cpu.Rip));
        Assert.Equal(code, _ram.Bytes(0x100_0000, code.Length));
    }

    /// <summary>A property note is padded to 8 bytes, the PVH note behind it to 4, in a segment whose alignment says 8.</summary>
    [Fact]
    public void A_pvh_note_behind_a_property_note_is_found()
    {
        byte[] notes = new byte[52];
        Note(notes, 0, 5, "GNU\0"u8, new byte[16]); // NT_GNU_PROPERTY_TYPE_0
        Note(notes, 32, 18, "Xen\0"u8, [0x30, 0, 0, 1]);
        Assert.Equal((BootProtocol.Pvh32, 0x100_0030UL), Start(WithNotes(notes, 8)));
        // A 4-byte description between, which ends off a multiple of 8.
        byte[] odd = [.. notes.AsSpan(0, 32), .. NoteBytes(6, [1, 2, 3, 4]), .. NoteBytes(18, [0x30, 0, 0, 1])];
        Assert.Equal((BootProtocol.Pvh32, 0x100_0030UL), Start(WithNotes(odd, 8)));
    }

    [Fact]
    public void An_unreadable_note_refuses_no_kernel_that_boots_otherwise()
    {
        byte[] wild = new byte[20];
        Put32(wild, 0, uint.MaxValue);
        Put32(wild, 4, uint.MaxValue);
        Put32(wild, 8, 18);
        Assert.Equal((BootProtocol.Linux64, 0x100_0000UL), Start(WithNotes(wild, 4)));
        Assert.Equal((BootProtocol.Linux64, 0x100_0000UL), Start(WithNotes(NoteBytes(18, [1, 2, 3]), 4)));
        Assert.Equal((BootProtocol.Linux64, 0x100_0000UL), Start(WithNotes(NoteBytes(18, [0, 0, 0, 0x70]), 4)));
        byte[] beyond = WithNotes(wild, 4);
        Put64(beyond, 120 + 8, ulong.MaxValue - 4);
        Assert.Equal((BootProtocol.Linux64, 0x100_0000UL), Start(beyond));
    }

    [Fact]
    public void An_initrd_above_the_kernels_limit_names_the_limit()
    {
        byte[] kernel = BzImage(Pattern(4096), preferred: 0x20_0000);
        Put32(kernel, 0x22C, 0x7F_FFFF);
        string message = Assert.Throws<BootException>(() => Boot(kernel, new byte[16 << 20])).Message;
        Assert.Contains("below 0x800000, the highest address", message, StringComparison.Ordinal);
        Assert.DoesNotContain("give the VM more memory", message, StringComparison.Ordinal);
    }

    private BootInfo Boot(byte[] kernel, byte[]? initrd = null) => BootLoader.Load(_ram.Memory, new BootRequest
    {
        Kernel = KernelImage.Load(BootFile.FromBytes(kernel, "kernel")),
        Initrd = initrd is null ? null : BootFile.FromBytes(initrd, "initrd"),
    });

    private (BootProtocol Protocol, ulong Entry) Start(byte[] kernel)
    {
        BootInfo info = Boot(kernel);
        return (info.Protocol, info.Cpu.Rip);
    }

    private static byte[] NoteBytes(uint type, byte[] description)
    {
        byte[] note = new byte[16 + ((description.Length + 3) & ~3)];
        Note(note, 0, type, "Xen\0"u8, description);
        return note;
    }

    private static void Note(byte[] notes, int at, uint type, ReadOnlySpan<byte> name, byte[] description)
    {
        Put32(notes, at, (uint)name.Length);
        Put32(notes, at + 4, (uint)description.Length);
        Put32(notes, at + 8, type);
        name.CopyTo(notes.AsSpan(at + 12));
        description.CopyTo(notes, at + 16);
    }

    /// <summary>The ELF64 file of <see cref="Elf"/>, whose note segment is these bytes, behind the code.</summary>
    private static byte[] WithNotes(byte[] notes, ulong alignment)
    {
        byte[] file = [.. Elf(Pattern(600), pvhEntry: 0x100_0000), .. notes];
        Put64(file, 120 + 8, (ulong)(file.Length - notes.Length));
        Put64(file, 120 + 32, (ulong)notes.Length);
        Put64(file, 120 + 40, (ulong)notes.Length);
        Put64(file, 120 + 48, alignment);
        return file;
    }

    private static byte[] Elf32(byte[] code, uint? pvhEntry)
    {
        byte[] notes = pvhEntry is { } entry ? NoteBytes(18, BitConverter.GetBytes(entry)) : [];
        byte[] file = [.. new byte[52 + 64], .. notes, .. code];
        new byte[] { 0x7F, (byte)'E', (byte)'L', (byte)'F', 1, 1, 1 }.CopyTo(file, 0);
        Put16(file, 16, 2);
        Put16(file, 18, 3);
        Put32(file, 24, 0x100_0000);
        Put32(file, 28, 52);
        Put16(file, 42, 32);
        Put16(file, 44, 2);
        Segment32(file, 52, 1, 116 + notes.Length, 0x100_0000, code.Length, 0x4000);
        Segment32(file, 84, 4, 116, 0, notes.Length, notes.Length);
        return file;
    }

    private static void Segment32(byte[] file, int at, uint type, int offset, uint address, int fileSize, int memorySize)
    {
        Put32(file, at, type);
        Put32(file, at + 4, (uint)offset);
        Put32(file, at + 8, address);
        Put32(file, at + 12, address);
        Put32(file, at + 16, (uint)fileSize);
        Put32(file, at + 20, (uint)memorySize);
    }

    private static byte[] Gzip(byte[] bytes)
    {
        using MemoryStream packed = new();
        using (GZipStream gzip = new(packed, CompressionMode.Compress))
        {
            gzip.Write(bytes);
        }

        return packed.ToArray();
    }

    private static byte[] Multiboot(byte[] file)
    {
        Put32(file, 64, 0x1BADB002);
        Put32(file, 72, unchecked(0u - 0x1BADB002));
        return file;
    }

    private static byte[] Pe(ushort machine, string section)
    {
        byte[] file = new byte[4096];
        "MZ"u8.CopyTo(file);
        Put32(file, 0x3C, 0x80);
        "PE\0\0"u8.CopyTo(file.AsSpan(0x80));
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(0x84), machine);
        System.Text.Encoding.ASCII.GetBytes(section).CopyTo(file, 0x188);
        return file;
    }

    private static byte[] At(int length, int at, ReadOnlySpan<byte> bytes)
    {
        byte[] file = new byte[length];
        bytes.CopyTo(file.AsSpan(at));
        return file;
    }
}
