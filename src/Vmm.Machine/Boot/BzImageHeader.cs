using System.Buffers.Binary;

namespace Vmm.Machine.Boot;

/// <summary>The setup header of a bzImage (Linux Documentation/arch/x86/boot.rst, protocol 2.12 or newer), checked.</summary>
public sealed class BzImageHeader
{
    internal const ulong MagicOffset = 0x202;
    internal const int Start = 0x1F1;
    private const int MinimumEnd = 0x264;
    private const int MaximumEnd = 0x290;
    private const ulong SectorSize = 512;
    private const ulong Entry64 = 0x200;

    private readonly byte[] _raw;

    private BzImageHeader(byte[] raw) => _raw = raw;

    /// <summary>The header's bytes, as they go to offset 0x1F1 of the zero page.</summary>
    public ReadOnlySpan<byte> Raw => _raw;

    /// <summary>Boot protocol version, e.g. 0x020F.</summary>
    public ushort Version => BinaryPrimitives.ReadUInt16LittleEndian(_raw.AsSpan(0x206 - Start));

    /// <summary>Where the protected-mode kernel starts in the file.</summary>
    public ulong KernelOffset { get; private init; }

    /// <summary>Bytes of the protected-mode kernel.</summary>
    public ulong KernelSize { get; private init; }

    /// <summary>The kernel may be put anywhere aligned to <see cref="Alignment"/>.</summary>
    public bool Relocatable => _raw[0x234 - Start] != 0;

    /// <summary>Alignment wanted by a relocatable kernel, a power of two.</summary>
    public ulong Alignment => Field(0x230);

    /// <summary>Highest address an initrd may use.</summary>
    public ulong InitrdAddressMax => Field(0x22C);

    /// <summary>Longest command line, without the zero.</summary>
    public uint CommandLineSize => Field(0x238);

    /// <summary>Where the kernel would like to run.</summary>
    public ulong PreferredAddress => BinaryPrimitives.ReadUInt64LittleEndian(_raw.AsSpan(0x258 - Start));

    /// <summary>RAM the kernel needs from its run address until it knows its memory map.</summary>
    public ulong InitSize => Field(0x260);

    internal static BzImageHeader Read(BootFile file)
    {
        Span<byte> head = stackalloc byte[MaximumEnd];
        int have = (int)Math.Min((ulong)head.Length, file.Length);
        file.Read(0, head[..have], "setup_header");
        if (have < MinimumEnd)
        {
            throw new BootException(file.Name, "setup_header", Start, $"truncated: the file has {file.Length} bytes");
        }

        if (BinaryPrimitives.ReadUInt16LittleEndian(head[0x1FE..]) != 0xAA55)
        {
            throw new BootException(file.Name, "boot_flag", 0x1FE, "is not 0xAA55");
        }

        ushort version = BinaryPrimitives.ReadUInt16LittleEndian(head[0x206..]);
        if (version < 0x020C)
        {
            throw new BootException(file.Name, "version", 0x206, ForeignPayload.OldProtocol(version));
        }

        int end = 0x202 + head[0x201];
        if (end < MinimumEnd || end > have)
        {
            throw new BootException(file.Name, "jump", 0x201, $"setup header ends at 0x{end:x}, expected 0x{MinimumEnd:x} to 0x{have:x}");
        }

        ulong setupSectors = head[0x1F1] == 0 ? 4u : head[0x1F1];
        ulong offset = (setupSectors + 1) * SectorSize;
        ulong size = BinaryPrimitives.ReadUInt32LittleEndian(head[0x1F4..]) * 16UL;
        if (offset > file.Length)
        {
            throw new BootException(
                file.Name, "setup_sects", 0x1F1, $"truncated: the kernel starts at 0x{offset:x}, the file has 0x{file.Length:x} bytes");
        }

        ulong available = file.Length - offset;
        if (size <= Entry64 || size - Math.Min(size, 15) > available)
        {
            throw new BootException(
                file.Name, "syssize", 0x1F4, $"the kernel has 0x{size:x} bytes by its header, 0x{available:x} in the file (truncated?)");
        }

        BzImageHeader header = new(head[Start..end].ToArray()) { KernelOffset = offset, KernelSize = Math.Min(size, available) };
        header.Check(file);
        return header;
    }

    private void Check(BootFile file)
    {
        if ((_raw[0x211 - Start] & 1) == 0)
        {
            throw new BootException(file.Name, "loadflags", 0x211, "LOADED_HIGH is not set: a zImage, not a bzImage");
        }

        if ((_raw[0x236 - Start] & 1) == 0)
        {
            throw new BootException(file.Name, "xloadflags", 0x236, "XLF_KERNEL_64 is not set: a 32-bit kernel, or a program that only "
                + "looks like one, such as ipxe.lkrn; use a 64-bit Linux kernel");
        }

        if (Relocatable && (Alignment == 0 || !ulong.IsPow2(Alignment)))
        {
            throw new BootException(file.Name, "kernel_alignment", 0x230, $"0x{Alignment:x} is not a power of two");
        }

        if (CommandLineSize == 0)
        {
            throw new BootException(file.Name, "cmdline_size", 0x238, "is 0");
        }
    }

    private uint Field(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(_raw.AsSpan(offset - Start));
}
