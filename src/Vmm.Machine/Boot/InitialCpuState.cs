namespace Vmm.Machine.Boot;

/// <summary>Which entry convention the boot CPU uses.</summary>
public enum BootProtocol
{
    /// <summary>Linux 64-bit boot protocol: long mode, RSI points at the zero page.</summary>
    Linux64,

    /// <summary>PVH: 32-bit protected mode without paging, EBX points at hvm_start_info.</summary>
    Pvh32,
}

/// <summary>One segment register with its hidden part (Intel SDM vol. 3, 3.4.5). <paramref name="Limit"/> is in bytes.</summary>
public readonly record struct BootSegment(
    ushort Selector, ulong Base, uint Limit, byte Type, bool System, bool Long, bool Default32, bool Granular4K)
{
    /// <summary>The descriptor as it lies in the GDT, present, DPL 0.</summary>
    public ulong Descriptor
    {
        get
        {
            ulong limit = Granular4K ? Limit >> 12 : Limit;
            ulong access = (ulong)Type | (System ? 0UL : 0x10UL) | 0x80UL;
            ulong flags = (Granular4K ? 8UL : 0) | (Default32 ? 4UL : 0) | (Long ? 2UL : 0);
            return (limit & 0xFFFF) | ((Base & 0xFF_FFFF) << 16) | (access << 40) | (((limit >> 16) & 0xF) << 48) | (flags << 52)
                | (((Base >> 24) & 0xFF) << 56);
        }
    }
}

/// <summary>Registers of the boot CPU; what is not here is zero. RFLAGS is always 2.</summary>
public sealed record InitialCpuState
{
    /// <summary>Control register 0.</summary>
    public required ulong Cr0 { get; init; }

    /// <summary>Page table root, 0 without paging.</summary>
    public required ulong Cr3 { get; init; }

    /// <summary>Control register 4.</summary>
    public required ulong Cr4 { get; init; }

    /// <summary>MSR EFER.</summary>
    public required ulong Efer { get; init; }

    /// <summary>Code segment, flat.</summary>
    public required BootSegment Code { get; init; }

    /// <summary>DS, ES, FS, GS and SS, flat.</summary>
    public required BootSegment Data { get; init; }

    /// <summary>Task register (KVM wants a busy TSS).</summary>
    public required BootSegment Task { get; init; }

    /// <summary>GPA of the GDT.</summary>
    public ulong GdtBase { get; init; } = BootLayout.Gdt;

    /// <summary>GDT limit in bytes (size - 1).</summary>
    public ushort GdtLimit { get; init; } = (5 * 8) - 1;

    /// <summary>First instruction.</summary>
    public required ulong Rip { get; init; }

    /// <summary>Stack pointer.</summary>
    public ulong Rsp { get; init; } = BootLayout.StackTop;

    /// <summary>Zero page for Linux64.</summary>
    public ulong Rsi { get; init; }

    /// <summary>hvm_start_info for PVH.</summary>
    public ulong Rbx { get; init; }

    /// <summary>Flags: interrupts off.</summary>
    public ulong Rflags { get; init; } = 2;

    internal static InitialCpuState Linux64(ulong entry) => new()
    {
        // PE, ET, NE, PG; PAE; LME and LMA. boot.rst 1.15: __BOOT_CS 0x10, __BOOT_DS 0x18, identity-mapped pages.
        Cr0 = 0x8000_0031,
        Cr3 = BootLayout.PageTables,
        Cr4 = 0x20,
        Efer = 0x500,
        Code = new BootSegment(0x10, 0, uint.MaxValue, 0xB, System: false, Long: true, Default32: false, Granular4K: true),
        Data = FlatData,
        Task = BusyTask,
        Rip = entry,
        Rsi = BootLayout.ZeroPage,
    };

    internal static InitialCpuState Pvh32(ulong entry) => new()
    {
        // Xen docs/misc/pvh.pandoc: PE only, CS/DS/ES/SS flat 32-bit, TR limit 0x67.
        Cr0 = 0x11,
        Cr3 = 0,
        Cr4 = 0,
        Efer = 0,
        Code = new BootSegment(0x10, 0, uint.MaxValue, 0xB, System: false, Long: false, Default32: true, Granular4K: true),
        Data = FlatData,
        Task = BusyTask,
        Rip = entry,
        Rbx = BootLayout.PvhStartInfo,
    };

    private static BootSegment FlatData => new(0x18, 0, uint.MaxValue, 0x3, System: false, Long: false, Default32: true, Granular4K: true);

    private static BootSegment BusyTask => new(0x20, 0, 0x67, 0xB, System: true, Long: false, Default32: false, Granular4K: false);
}
