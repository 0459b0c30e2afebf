using Vmm.Memory;

namespace Vmm.Devices.Acpi;

/// <summary>One processor for MADT, SRAT and DSDT.</summary>
/// <param name="ApicId">Local APIC id.</param>
/// <param name="Vnode">Proximity domain.</param>
public sealed record AcpiProcessor(uint ApicId, int Vnode);

/// <summary>One range of RAM for SRAT.</summary>
/// <param name="Start">Guest physical address.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Vnode">Proximity domain.</param>
/// <param name="HotPluggable">Memory may come and go.</param>
public sealed record AcpiMemory(GuestAddress Start, ulong Length, int Vnode, bool HotPluggable = false);

/// <summary>A PCI device of segment 0 that reads and writes memory from near a vnode, for SRAT.</summary>
/// <param name="Bus">Bus number.</param>
/// <param name="Slot">Device number; its function is 0.</param>
/// <param name="Vnode">Proximity domain.</param>
public sealed record AcpiInitiator(byte Bus, byte Slot, int Vnode);

/// <summary>A window of a virtio-mmio device (virtio 1.2, 4.2).</summary>
/// <param name="Base">Guest physical address below 4 GiB.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Gsi">Its interrupt, an edge.</param>
public sealed record AcpiVirtioMmio(GuestAddress Base, ulong Length, uint Gsi);

/// <summary>Everything the tables say; a plain description that knows no device objects.</summary>
public sealed record AcpiConfig
{
    /// <summary>Processors, by index (their ACPI UID).</summary>
    public required IReadOnlyList<AcpiProcessor> Processors { get; init; }

    /// <summary>RAM by vnode.</summary>
    public required IReadOnlyList<AcpiMemory> Memory { get; init; }

    /// <summary>Devices that are near a vnode.</summary>
    public IReadOnlyList<AcpiInitiator> Initiators { get; init; } = [];

    /// <summary>SLIT rows; null leaves SRAT and SLIT out (no NUMA).</summary>
    public IReadOnlyList<IReadOnlyList<int>>? Distances { get; init; }

    /// <summary>What HMAT says; null leaves it out.</summary>
    public AcpiPerformance? Performance { get; init; }

    /// <summary>ECAM base.</summary>
    public required GuestAddress EcamBase { get; init; }

    /// <summary>Last PCI bus number; ECAM is (this + 1) MiB.</summary>
    public byte LastBus { get; init; } = 255;

    /// <summary>32-bit BAR window.</summary>
    public required GuestAddress Window32Start { get; init; }

    /// <summary>Bytes of the 32-bit BAR window.</summary>
    public required ulong Window32Length { get; init; }

    /// <summary>64-bit BAR window.</summary>
    public GuestAddress Window64Start { get; init; }

    /// <summary>Bytes of the 64-bit BAR window; 0 is none.</summary>
    public ulong Window64Length { get; init; }

    /// <summary>A 16550 at port 0x3F8, GSI 4.</summary>
    public bool Serial { get; init; } = true;

    /// <summary>A <see cref="Legacy.PvPanic"/> at its port.</summary>
    public bool PvPanic { get; init; }

    /// <summary>Where the VM generation id lies (16 bytes, 8-byte aligned, reserved memory); null is no such device.</summary>
    public GuestAddress? GenerationId { get; init; }

    /// <summary>GSI of the generic event device, whose only event is the power button; null leaves both out.</summary>
    public uint? PowerButtonGsi { get; init; }

    /// <summary>GSI of the keyboard at <see cref="Legacy.I8042"/>; null is no keyboard.</summary>
    public uint? KeyboardGsi { get; init; }

    /// <summary>
    /// GSI of the generic event device of PCI hotplug (<see cref="Pci.PciHotplugPorts"/>); null: no slot is plugged by ACPI, and the OS
    /// gets control of native hotplug.
    /// </summary>
    public uint? HotplugGsi { get; init; }

    /// <summary>
    /// The slots of each bus that can be ejected and plugged again, bit n for slot n: what is not in it stays. Bus 0 first; the others are
    /// behind bridges.
    /// </summary>
    public IReadOnlyList<uint> HotplugSlots { get; init; } = [0];

    /// <summary>
    /// The I/O APIC pins that <see cref="Pci.PciHostBridge.IntxLine"/> leads to, one after the other; none leaves _PRT out.
    /// </summary>
    public (uint First, int Count) IntxGsis { get; init; }

    /// <summary>What the machine's own functions on bus 0 look like: where the bridges are.</summary>
    public Pci.PciFace Face { get; init; }

    /// <summary>virtio-mmio devices.</summary>
    public IReadOnlyList<AcpiVirtioMmio> VirtioMmio { get; init; } = [];

    /// <summary>First of the ports of <see cref="Legacy.AcpiPowerPorts"/>.</summary>
    public ushort PowerPort { get; init; } = (ushort)Legacy.AcpiPowerPorts.Port;

    /// <summary>First of the ports of <see cref="AcpiPmTimer"/>.</summary>
    public ushort PmTimerPort { get; init; } = (ushort)AcpiPmTimer.Port;
}
