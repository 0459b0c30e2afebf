namespace Vmm.Devices.Pci;

/// <summary>
/// A bridge to a conventional PCI bus with 32 slots. What is behind it is plugged the ACPI way: a PCI Express port
/// (<see cref="PciRootPort"/>) has a bus with one slot only.
/// </summary>
/// <param name="behind">The bus behind it.</param>
/// <param name="slot">Its slot on bus 0.</param>
internal sealed class ConventionalBridge(BehindBridge behind, int slot)
    : PciBridge($"PCI bridge {behind.Bus}", 0x0001, PciBusKind.Conventional, behind, slot, PciHostBridge.Slots);
