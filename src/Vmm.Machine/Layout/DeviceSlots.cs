using Vmm.Devices.Pci;
using Vmm.Spec;

namespace Vmm.Machine.Layout;

/// <summary>How many bridges to further PCI buses a machine gets, and which interrupt pins its virtio-mmio devices have.</summary>
public static class DeviceSlots
{
    /// <summary>The I/O APIC pin of the first device on virtio-mmio; there are <see cref="DeviceCount.MostMmio"/> from here on.</summary>
    internal const uint FirstMmioGsi = 5;

    /// <summary>
    /// The I/O APIC pins that the interrupt pins of PCI functions lead to: the four below hotplug's, less those that virtio-mmio devices
    /// need. A machine with as many of these as there can be has none left, and its PCI functions have messages only.
    /// </summary>
    /// <param name="mmioDevices">Devices on virtio-mmio.</param>
    /// <param name="hasPorts">Hotplug is by root ports, which use these pins: that of ACPI is one of them.</param>
    internal static (uint First, int Count) IntxGsis(int mmioDevices, bool hasPorts = false)
    {
        uint end = FirstMmioGsi + DeviceCount.MostMmio + (hasPorts ? 1u : 0);
        uint first = Math.Max(end - PciHostBridge.IntxLines, FirstMmioGsi + (uint)mmioDevices);
        return (first, (int)(end - first));
    }

    // Two: room to plug 64 disks into any VM while it runs. Five: more than any spec has (64 disks, 8 network devices, 64 vnodes that grow,
    // 4 others).
    private const int LeastBridges = 2, MostBridges = 5;

    /// <summary>
    /// A bridge takes a slot of bus 0 and gives a bus of its own: what one adds, and what bus 0 has beside the host bridge.
    /// </summary>
    private const int SlotsPerBridge = PciHostBridge.Slots - 1;

    /// <summary>PCI devices that there is room for: <see cref="DeviceCount.MostPci"/>.</summary>
    public static int MostPci => SlotsPerBridge * (1 + MostBridges);

    /// <summary>
    /// How many bridges a machine has that starts with so many PCI devices: enough for them and some 31 more, or as many as there can be.
    /// </summary>
    public static int Bridges(int devices) => Math.Clamp((devices + SlotsPerBridge - 1) / SlotsPerBridge, LeastBridges, MostBridges);
}
