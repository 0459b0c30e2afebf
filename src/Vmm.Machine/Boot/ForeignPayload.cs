using System.Buffers.Binary;
using System.Text;

namespace Vmm.Machine.Boot;

/// <summary>
/// Names what was given as a kernel and is none that this loader starts, and says what to do. It looks at magic numbers only: nothing here
/// makes a file bootable.
/// </summary>
internal static class ForeignPayload
{
    private const int HeadBytes = 64 << 10;
    private const int PeOffsetAt = 0x3C;
    private const uint MultibootMagic = 0x1BADB002;     // Multiboot 0.6.96, section 3.1.1
    private const uint Multiboot2Magic = 0xE85250D6;    // Multiboot2, section 3.1.1
    private const int MultibootArea = 8 << 10;

    private static readonly (byte[] Magic, string Name, string Tool)[] Compressed =
    [
        ([0x1F, 0x8B], "gzip", "gunzip"),
        ([0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0], "xz", "unxz"),
        ([0x28, 0xB5, 0x2F, 0xFD], "zstd", "unzstd"),
        ([(byte)'B', (byte)'Z', (byte)'h'], "bzip2", "bunzip2"),
        ([0x04, 0x22, 0x4D, 0x18], "lz4", "unlz4"),
        ([0x02, 0x21, 0x4C, 0x18], "lz4 (the kernel's own form)", "unlz4"),
        ([0x89, (byte)'L', (byte)'Z', (byte)'O', 0], "lzop", "lzop -d"),
        ([0x5D, 0, 0], "lzma", "unlzma"),
    ];

    /// <summary>What a file without the magic of a kernel is.</summary>
    internal static BootException Describe(BootFile file)
    {
        if (file.Length == 0)
        {
            return new BootException(file.Name, "file", null, "is empty: give it a bzImage or an ELF kernel");
        }

        byte[] head = new byte[Math.Min(file.Length, HeadBytes)];
        file.Read(0, head, "magic");
        return new BootException(
            file.Name, "magic", 0, Name(file, head) ?? "neither an ELF file (0x7f 'ELF' at 0) nor a Linux bzImage ('HdrS' at 0x202)");
    }

    /// <summary>An ELF kernel that has neither a PVH note nor 64-bit code.</summary>
    internal static BootException Elf32(BootFile file)
    {
        byte[] head = new byte[Math.Min(file.Length, MultibootArea)];
        file.Read(0, head, "ELF header");
        string what = HasMultiboot(head)
            ? "a multiboot kernel, whose start protocol is not supported"
            : "a 32-bit ELF file without a PVH note (XEN_ELFNOTE_PHYS32_ENTRY)";
        return new BootException(file.Name, "EI_CLASS", 4, what + ": give it a PVH note, or use a 64-bit kernel");
    }

    /// <summary>Why an ELF file of that machine cannot run.</summary>
    internal static string Machine(ushort machine) => machine switch
    {
        3 => "3 is i386 in a 64-bit ELF file",
        40 => "40 is Arm, not x86-64 (62): use a kernel for x86-64",
        183 => "183 is AArch64, not x86-64 (62): use a kernel for x86-64",
        243 => "243 is RISC-V, not x86-64 (62): use a kernel for x86-64",
        _ => $"{machine} is not x86-64 (62): use a kernel for x86-64",
    };

    /// <summary>What an image with a Linux setup header too old for a 64-bit entry is.</summary>
    internal static string OldProtocol(ushort version) =>
        $"boot protocol {version >> 8}.{version & 0xFF:00} is too old: the 64-bit entry needs 2.12 (Linux 3.8). Programs that only look "
        + "like a kernel, such as ipxe.lkrn and memtest86+ of old, have no 64-bit entry: use a Linux kernel";

    private static string? Name(BootFile file, byte[] head) =>
        Archive(head) ?? Arm64(head) ?? Disk(file, head) ?? Efi(head) ?? Firmware(file, head)
        ?? (HasMultiboot(head)
            ? "a multiboot kernel, whose start protocol is not supported: use a Linux kernel, or an ELF file with a PVH note"
            : null);

    private static string? Archive(byte[] head)
    {
        foreach ((byte[] magic, string name, string tool) in Compressed)
        {
            if (head.AsSpan().StartsWith(magic))
            {
                return $"a file compressed with {name}: unpack it first ({tool}), then give what comes out";
            }
        }

        return head.AsSpan().StartsWith("070701"u8) || head.AsSpan().StartsWith("070702"u8)
            ? "a cpio archive, as initrds are: give it as the initrd (boot.initrd, --initrd)"
            : null;
    }

    private static string? Arm64(byte[] head) =>
        head.Length >= 64 && head.AsSpan(56).StartsWith("ARMd"u8) ? "a Linux kernel for arm64: use a kernel for x86-64" : null;

    private static string? Disk(BootFile file, byte[] head)
    {
        const string Instead = ": give it as a disk (disks, --disk) beside a kernel";
        if (head.AsSpan().StartsWith((ReadOnlySpan<byte>)[(byte)'Q', (byte)'F', (byte)'I', 0xFB]))
        {
            return "a qcow2 disk image" + Instead;
        }

        if (head.Length >= 0x208 && head.AsSpan(0x200).StartsWith("EFI PART"u8))
        {
            return "a disk image with a GUID partition table" + Instead;
        }

        if (head.Length >= 0x43A && BinaryPrimitives.ReadUInt16LittleEndian(head.AsSpan(0x438)) == 0xEF53)
        {
            return "an ext2, ext3 or ext4 file system" + Instead;
        }

        if (head.Length >= 0x8006 && head.AsSpan(0x8001).StartsWith("CD001"u8))
        {
            return "an ISO 9660 image: take the kernel and the initrd out of it";
        }

        bool bootSector = file.Length > 512 && file.Length % 512 == 0
            && BinaryPrimitives.ReadUInt16LittleEndian(head.AsSpan(0x1FE)) == 0xAA55;
        return bootSector && !head.AsSpan().StartsWith("MZ"u8) ? "a disk image with a boot sector" + Instead : null;
    }

    // PE/COFF: the signature stands where the DOS header's e_lfanew says; a unified kernel image has a section named .linux.
    private static string? Efi(byte[] head)
    {
        if (head.Length < PeOffsetAt + 4 || !head.AsSpan().StartsWith("MZ"u8))
        {
            return null;
        }

        uint at = BinaryPrimitives.ReadUInt32LittleEndian(head.AsSpan(PeOffsetAt));
        if (at > head.Length - 6 || !head.AsSpan((int)at).StartsWith("PE\0\0"u8))
        {
            return "a DOS program: use a Linux kernel";
        }

        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(head.AsSpan((int)at + 4));
        if (machine == 0xAA64)
        {
            return "an EFI program for arm64: use a kernel for x86-64";
        }

        return head.AsSpan((int)at).IndexOf(".linux"u8) >= 0
            ? "a unified kernel image (UKI), which needs EFI firmware: take the kernel and the initrd out of it (objcopy -O binary -j "
                + ".linux, -j .initrd)"
            : "an EFI program, which needs EFI firmware: give the Linux kernel that it loads";
    }

    // UEFI PI volume 3, 3.2.1: the signature of a firmware volume header stands at its offset 40. A flash image without variables may begin
    // with padding.
    private static string? Firmware(BootFile file, byte[] head)
    {
        const string Why = ": the VM has no firmware, it starts a kernel at once; give a kernel";
        if (head.Length >= 44 && head.AsSpan(40).StartsWith("_FVH"u8))
        {
            return "an EFI firmware image such as OVMF" + Why;
        }

        if (file.Length < 64 << 10 || file.Length % (64 << 10) != 0)
        {
            return null;
        }

        // The reset vector: the last 16 bytes of a flash image begin with a jump (after up to two nops).
        Span<byte> vector = stackalloc byte[16];
        file.Read(file.Length - 16, vector, "reset vector");
        return vector[0] is 0xEA or 0xE9 || vector.StartsWith((ReadOnlySpan<byte>)[0x90, 0x90, 0xE9])
            ? "a firmware image such as SeaBIOS or OVMF" + Why
            : null;
    }

    private static bool HasMultiboot(byte[] head)
    {
        for (int at = 0; at + 12 <= Math.Min(head.Length, MultibootArea); at += 4)
        {
            uint magic = BinaryPrimitives.ReadUInt32LittleEndian(head.AsSpan(at)), sum = magic
                + BinaryPrimitives.ReadUInt32LittleEndian(head.AsSpan(at + 4))
                + BinaryPrimitives.ReadUInt32LittleEndian(head.AsSpan(at + 8));
            if (magic == MultibootMagic && sum == 0)
            {
                return true;
            }

            if (magic == Multiboot2Magic)
            {
                return true;
            }
        }

        return false;
    }
}
