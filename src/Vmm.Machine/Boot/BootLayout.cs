namespace Vmm.Machine.Boot;

/// <summary>
/// Where the loader puts its own tables in the first MiB of guest RAM. The one place for these numbers:
/// <code>
/// 0x00500  GDT                         0x20000  command line (64 KiB at most)
/// 0x06000  PVH start info and memmap   0x9FC00  EBDA, reserved
/// 0x07000  zero page (boot_params)     0xA0000  no RAM promised to the guest
/// 0x08000  first stack                 0xE0000  ACPI: RSDP first, then the tables; at the end SMBIOS; reserved
/// 0x09000  page tables (6 pages)       0xFF000  VM generation id, SMBIOS entry point; 0xFFFF0 reset stub; reserved
///                                      0x100000 kernel and everything else
/// </code>
/// </summary>
public static class BootLayout
{
    /// <summary>Global descriptor table, 5 entries.</summary>
    public const ulong Gdt = 0x500;

    /// <summary>hvm_start_info, then the module list.</summary>
    public const ulong PvhStartInfo = 0x6000;

    /// <summary>hvm_modlist_entry of the initrd.</summary>
    public const ulong PvhModules = 0x6040;

    /// <summary>hvm_memmap_table_entry array, up to the zero page.</summary>
    public const ulong PvhMemoryMap = 0x6100;

    /// <summary>boot_params, 4 KiB.</summary>
    public const ulong ZeroPage = 0x7000;

    /// <summary>Initial RSP: the stack grows down inside 0x8000-0x8FFF.</summary>
    public const ulong StackTop = 0x8FF0;

    /// <summary>PML4, then one page directory pointer table, then four page directories.</summary>
    public const ulong PageTables = 0x9000;

    /// <summary>The command line, zero terminated.</summary>
    public const ulong CommandLine = 0x2_0000;

    /// <summary>Room for the command line with its zero.</summary>
    public const int CommandLineRoom = 0x1_0000;

    /// <summary>End of usable RAM below 640 KiB.</summary>
    public const ulong LowRamEnd = 0x9_FC00;

    /// <summary>End of the reserved EBDA.</summary>
    public const ulong EbdaEnd = 0xA_0000;

    /// <summary>The RSDP lies here, the other ACPI tables behind it (ACPI 6.5, 5.2.5.1: searched from 0xE0000).</summary>
    public const ulong AcpiTables = 0xE_0000;

    /// <summary>
    /// The ACPI tables, and the structures of SMBIOS behind them, end before this page. It begins with the VM generation id, when there is
    /// one, has <see cref="SmbiosAnchor"/>, and ends with <see cref="ResetVector"/>.
    /// </summary>
    public const ulong FirmwarePage = HighMemory - 0x1000;

    /// <summary>The entry point of SMBIOS (DSP0134 5.2.2: on a border of 16 bytes, searched from 0xF0000).</summary>
    public const ulong SmbiosAnchor = FirmwarePage + 0x100;

    /// <summary>F000:FFF0, where a PC's firmware is entered: <see cref="ResetStub"/> lies here.</summary>
    public const ulong ResetVector = HighMemory - 0x10;

    /// <summary>The first MiB ends: kernels are loaded from here up.</summary>
    public const ulong HighMemory = 0x10_0000;

    /// <summary>Nothing of the boot goes above this (PCI hole follows).</summary>
    public const ulong LoadLimit = 3UL << 30;

    /// <summary>Entries that fit boot_params.e820_table.</summary>
    public const int MaxMemoryMapEntries = 128;
}
