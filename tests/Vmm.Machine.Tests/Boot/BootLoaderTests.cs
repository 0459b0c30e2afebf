using Vmm.Machine.Boot;
using static Vmm.Machine.Tests.Boot.KernelFiles;

namespace Vmm.Machine.Tests.Boot;

public sealed class BootLoaderTests : IDisposable
{
    private readonly TestRam _ram = new((0, 64 * Mib));

    public void Dispose() => _ram.Dispose();

    private static KernelImage Image(byte[] file) => KernelImage.Load(BootFile.FromBytes(file, "kernel"));

    private BootInfo Boot(byte[] kernel, byte[]? initrd = null, string commandLine = "console=ttyS0", TestRam? ram = null) =>
        BootLoader.Load((ram ?? _ram).Memory, new BootRequest
        {
            Kernel = Image(kernel),
            Initrd = initrd is null ? null : BootFile.FromBytes(initrd, "initrd"),
            CommandLine = commandLine,
            AcpiRsdp = new(BootLayout.AcpiTables),
        });

    [Fact]
    public void BzImage_goes_to_its_preferred_address_and_starts_at_the_64_bit_entry()
    {
        byte[] payload = Pattern(8192);
        BootInfo info = Boot(BzImage(payload));
        Assert.Equal(BootProtocol.Linux64, info.Protocol);
        Assert.Equal(0x100_0200UL, info.Cpu.Rip);
        Assert.Equal(0x7000UL, info.Cpu.Rsi);
        Assert.Equal(0x120_0000UL, info.KernelEnd);
        Assert.Equal(payload, _ram.Bytes(0x100_0000, payload.Length));
    }

    [Fact]
    public void Zero_page_fields_lie_where_the_boot_protocol_says()
    {
        byte[] kernel = BzImage(Pattern(4096));
        byte[] initrd = Pattern(5000);
        BootInfo info = Boot(kernel, initrd);
        const ulong Zero = 0x7000;
        Assert.Equal(0xE_0000UL, _ram.Value<ulong>(Zero + 0x070));
        Assert.Equal(0xAA55, _ram.Value<ushort>(Zero + 0x1FE));
        Assert.Equal(0x5372_6448u, _ram.Value<uint>(Zero + 0x202));
        Assert.Equal(0x020F, _ram.Value<ushort>(Zero + 0x206));
        Assert.Equal(0xFF, _ram.Value<byte>(Zero + 0x210));
        Assert.Equal(0x01, _ram.Value<byte>(Zero + 0x211));
        Assert.Equal((uint)info.InitrdStart, _ram.Value<uint>(Zero + 0x218));
        Assert.Equal(5000u, _ram.Value<uint>(Zero + 0x21C));
        Assert.Equal(0u, _ram.Value<uint>(Zero + 0x0C0));
        Assert.Equal(0u, _ram.Value<uint>(Zero + 0x0C4));
        Assert.Equal(0x2_0000u, _ram.Value<uint>(Zero + 0x228));
        Assert.Equal(kernel.AsSpan(0x230, 0x20).ToArray(), _ram.Bytes(Zero + 0x230, 0x20));
        Assert.Equal("console=ttyS0\0"u8.ToArray(), _ram.Bytes(0x2_0000, 14));
        Assert.Equal(4, _ram.Value<byte>(Zero + 0x1E8));
        (ulong, ulong, uint)[] map = [.. Enumerable.Range(0, 4)
            .Select(i => (
                _ram.Value<ulong>(Zero + 0x2D0 + (ulong)(i * 20)),
                _ram.Value<ulong>(Zero + 0x2D8 + (ulong)(i * 20)),
                _ram.Value<uint>(Zero + 0x2E0 + (ulong)(i * 20))))];
        Assert.Equal([(0, 0x9_FC00, 1), (0x9_FC00, 0x400, 2), (0xE_0000, 0x2_0000, 2), (0x10_0000, 63 * Mib, 1)], map);
    }

    [Fact]
    public void Initrd_lies_as_high_as_possible_and_below_initrd_addr_max()
    {
        byte[] initrd = Pattern(5000);
        BootInfo info = Boot(BzImage(Pattern(4096)), initrd);
        Assert.Equal((64 * Mib) - 8192, info.InitrdStart);
        Assert.Equal(initrd, _ram.Bytes(info.InitrdStart, initrd.Length));

        byte[] low = BzImage(Pattern(4096));
        Put32(low, 0x22C, 0x2FF_FFFF);
        using TestRam other = new((0, 64 * Mib));
        Assert.Equal(0x300_0000UL - 8192, Boot(low, initrd, ram: other).InitrdStart);
    }

    [Fact]
    public void Initrd_goes_below_the_kernel_when_the_kernel_sits_at_the_top()
    {
        BootInfo info = Boot(Elf(Pattern(4096), address: 0x3F0_0000, memorySize: 0x10_0000), Pattern(5000));
        Assert.Equal(0x3F0_0000UL - 8192, info.InitrdStart);
    }

    [Fact]
    public void Kernel_and_initrd_may_span_vnodes()
    {
        using TestRam ram = new((0, 17 * Mib), (17 * Mib, 15 * Mib), (4096 * Mib, 16 * Mib));
        byte[] payload = Pattern((int)Mib * 3 / 2);
        byte[] initrd = Pattern((int)Mib * 12);
        BootInfo info = Boot(BzImage(payload, preferred: 0x108_0000, initSize: 0x18_0000), initrd, ram: ram);
        Assert.Equal(payload[^4096..], ram.Bytes(0x108_0000 + (ulong)payload.Length - 4096, 4096));
        Assert.Equal(payload[..4096], ram.Bytes(0x108_0000, 4096));
        Assert.Equal(20 * Mib, info.InitrdStart);
        Assert.Equal(new BootMemoryRange(4096 * Mib, 16 * Mib, 1), info.MemoryMap[^1]);
        Assert.Equal(new BootMemoryRange(Mib, 31 * Mib, 1), info.MemoryMap[^2]);
    }

    [Fact]
    public void Relocatable_kernel_moves_down_when_its_preferred_address_has_no_room()
    {
        BootInfo info = Boot(BzImage(Pattern(4096), preferred: 63 * Mib));
        Assert.Equal(0x20_0200UL, info.Cpu.Rip);
    }

    [Fact]
    public void Fixed_kernel_is_loaded_at_1_MiB_and_its_run_address_is_kept_free()
    {
        BootInfo info = Boot(BzImage(Pattern(4096), relocatable: false), Pattern(100));
        Assert.Equal(0x10_0200UL, info.Cpu.Rip);
        Assert.Equal(0x120_0000UL, info.KernelEnd);
    }

    [Fact]
    public void Identity_map_covers_4_GiB_and_the_GDT_matches_the_segments()
    {
        InitialCpuState cpu = Boot(BzImage(Pattern(4096))).Cpu;
        foreach (ulong address in new ulong[] { 0, 0x20_0000, 0x100_0000, 0x4000_0000, 0xBFFF_FFFF, 0xFFFF_FFFF })
        {
            ulong l4 = _ram.Value<ulong>(cpu.Cr3 + ((address >> 39) * 8));
            ulong l3 = _ram.Value<ulong>((l4 & ~0xFFFUL) + ((address >> 30 & 511) * 8));
            ulong l2 = _ram.Value<ulong>((l3 & ~0xFFFUL) + ((address >> 21 & 511) * 8));
            Assert.Equal(3UL, l4 & 0xFFF);
            Assert.Equal(3UL, l3 & 0xFFF);
            Assert.Equal(address & ~0x1F_FFFFUL, l2 & ~0x1F_FFFFUL);
            Assert.Equal(0x83UL, l2 & 0x1F_FFFF);
        }

        Assert.Equal(0x00AF_9B00_0000_FFFFUL, _ram.Value<ulong>(0x510));
        Assert.Equal(0x00CF_9300_0000_FFFFUL, _ram.Value<ulong>(0x518));
        Assert.Equal(0x0000_8B00_0000_0067UL, _ram.Value<ulong>(0x520));
        Assert.Equal((0x8000_0031UL, 0x20UL, 0x500UL, 2UL), (cpu.Cr0, cpu.Cr4, cpu.Efer, cpu.Rflags));
    }

    [Fact]
    public void Pvh_kernel_starts_at_its_note_with_start_info_in_rbx()
    {
        byte[] code = Pattern(600);
        BootInfo info = Boot(Elf(code, pvhEntry: 0x100_0010), Pattern(100));
        Assert.Equal(BootProtocol.Pvh32, info.Protocol);
        Assert.Equal((0x100_0010UL, 0x6000UL, 0x11UL), (info.Cpu.Rip, info.Cpu.Rbx, info.Cpu.Cr0));
        Assert.Equal(0x00CF_9B00_0000_FFFFUL, _ram.Value<ulong>(0x510));
        Assert.Equal(code, _ram.Bytes(0x100_0000, code.Length));
        Assert.Equal(
            (0x336E_C578u, 1u, 0u, 1u),
            (_ram.Value<uint>(0x6000), _ram.Value<uint>(0x6004), _ram.Value<uint>(0x6008), _ram.Value<uint>(0x600C)));
        ulong module = _ram.Value<ulong>(0x6010);
        Assert.Equal((info.InitrdStart, 100UL), (_ram.Value<ulong>(module), _ram.Value<ulong>(module + 8)));
        Assert.Equal((0x2_0000UL, 0xE_0000UL), (_ram.Value<ulong>(0x6018), _ram.Value<ulong>(0x6020)));
        ulong map = _ram.Value<ulong>(0x6028);
        Assert.Equal(4u, _ram.Value<uint>(0x6030));
        Assert.Equal((0x10_0000UL, 63 * Mib, 1u), (_ram.Value<ulong>(map + 72), _ram.Value<ulong>(map + 80), _ram.Value<uint>(map + 88)));
    }

    [Fact]
    public void Plain_ELF_starts_at_e_entry_with_a_zero_page_of_our_own()
    {
        BootInfo info = Boot(Elf(Pattern(600)));
        Assert.Equal((BootProtocol.Linux64, 0x100_0000UL, 0x7000UL), (info.Protocol, info.Cpu.Rip, info.Cpu.Rsi));
        Assert.Equal(0x5372_6448u, _ram.Value<uint>(0x7202));
        Assert.Equal(4, _ram.Value<byte>(0x71E8));
    }

    [Theory]
    [InlineData(0x211, 0, "loadflags")]
    [InlineData(0x236, 0, "xloadflags")]
    [InlineData(0x1FE, 0, "boot_flag")]
    [InlineData(0x207, 1, "version")]
    [InlineData(0x201, 0, "jump")]
    [InlineData(0x1F1, 200, "setup_sects")]
    [InlineData(0x1F5, 255, "syssize")]
    [InlineData(0x230, 3, "kernel_alignment")]
    [InlineData(0x263, 0xFF, "init_size")]
    public void BzImage_with_a_wrong_field_is_refused_by_name_and_offset(int offset, byte value, string field)
    {
        byte[] file = BzImage(Pattern(4096));
        file[offset] = value;
        BootException error = Assert.Throws<BootException>(() => Boot(file));
        Assert.Equal(field, error.Field);
        Assert.StartsWith($"kernel: {field} (offset 0x", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(4, 0, "EI_CLASS")]
    [InlineData(5, 2, "EI_DATA")]
    [InlineData(16, 3, "e_type")]
    [InlineData(18, 40, "e_machine")]
    [InlineData(25, 0xFF, "e_entry")]
    [InlineData(39, 0xFF, "e_phoff")]
    [InlineData(54, 1, "e_phentsize")]
    [InlineData(56, 0, "e_phnum")]
    [InlineData(64 + 15, 0xFF, "p_offset of program header 0")]
    [InlineData(64 + 39, 0xFF, "p_filesz of program header 0")]
    [InlineData(64 + 47, 0xFF, "p_paddr of program header 0")]
    [InlineData(64 + 44, 0xFF, "p_paddr")]
    public void ELF_with_a_wrong_field_is_refused_by_name(int offset, byte value, string field)
    {
        byte[] file = Elf(Pattern(4096));
        file[offset] = value;
        if (offset == 64 + 47)
        {
            Put64(file, 64 + 24, ulong.MaxValue - 0x1000);
        }

        Assert.Equal(field, Assert.Throws<BootException>(() => Boot(file)).Field);
    }

    [Fact]
    public void Kernel_in_the_first_MiB_overlapping_segments_and_long_command_lines_are_refused()
    {
        Assert.Contains(
            "first MiB", Assert.Throws<BootException>(() => Boot(Elf(Pattern(64), address: 0x8000))).Message, StringComparison.Ordinal);
        byte[] twice = Elf(Pattern(64), pvhEntry: 0x100_0000);
        twice.AsSpan(64, 56).CopyTo(twice.AsSpan(120));
        Assert.Contains("overlaps", Assert.Throws<BootException>(() => Boot(twice)).Message, StringComparison.Ordinal);
        Assert.Equal(
            "command line", Assert.Throws<BootException>(() => Boot(BzImage(Pattern(4096)), commandLine: new string('x', 256))).Field);
        Assert.Equal("command line", Assert.Throws<BootException>(() => Boot(BzImage(Pattern(4096)), commandLine: "a\0b")).Field);
        Assert.Equal("initrd", Assert.Throws<BootException>(() => Boot(BzImage(Pattern(4096)), new byte[64 << 20])).Field);
        Assert.Equal("initrd", Assert.Throws<BootException>(() => Boot(BzImage(Pattern(4096)), [])).Field);
    }

    [Fact]
    public void Missing_files_and_directories_are_boot_errors_that_name_the_path()
    {
        Assert.Equal(
            "no/such/kernel: file: does not exist", Assert.Throws<BootException>(() => KernelImage.Load("no/such/kernel")).Message);
        Assert.Contains(
            "is a directory", Assert.Throws<BootException>(() => KernelImage.Load(Path.GetTempPath())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kernel_file_on_disk_loads_as_the_same_bytes_do()
    {
        string path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());
        byte[] code = Pattern(3000);
        File.WriteAllBytes(path, Elf(code, pvhEntry: 0x100_0000));
        try
        {
            using KernelImage kernel = KernelImage.Load(path);
            BootLoader.Load(_ram.Memory, new BootRequest { Kernel = kernel });
            Assert.Equal(code, _ram.Bytes(0x100_0000, code.Length));
        }
        finally
        {
            File.Delete(path);
        }
    }
}
