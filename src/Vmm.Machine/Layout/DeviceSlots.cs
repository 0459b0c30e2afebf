using Vmm.Devices.Pci;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Machine.Layout;

/// <summary>How much room there is for devices, and how many bridges to further PCI buses a machine gets.</summary>
public static class DeviceSlots
{
    /// <summary>Most devices on virtio-mmio: each has an I/O APIC pin of its own, 5 to 22.</summary>
    public const int MostMmio = (int)(LastMmioGsi - FirstMmioGsi + 1);

    /// <summary>Bytes of a bridge's memory window: a MiB for each slot.</summary>
    internal const uint BridgeWindow = PciHostBridge.Slots << 20;

    internal const uint FirstMmioGsi = 5;

    private const uint LastMmioGsi = 22;

    // Two: room to plug 64 disks into any VM while it runs. Five: more than any spec has (64 disks, 8 network devices, 64 vnodes that grow, 4 others).
    private const int LeastBridges = 2, MostBridges = 5;

    /// <summary>A bridge takes a slot of bus 0 and gives a bus of its own: what one adds, and what bus 0 has beside the host bridge.</summary>
    private const int SlotsPerBridge = PciHostBridge.Slots - 1;

    /// <summary>Most PCI devices.</summary>
    public static int MostPci => SlotsPerBridge * (1 + MostBridges);

    /// <summary>How many bridges a machine has that starts with so many PCI devices: enough for them and some 31 more, or as many as there can be.</summary>
    public static int Bridges(int devices) => Math.Clamp((devices + SlotsPerBridge - 1) / SlotsPerBridge, LeastBridges, MostBridges);

    /// <summary>PCI devices that a spec starts with.</summary>
    public static int Pci(VmSpec spec) => Count(spec, VirtioTransport.Pci);

    /// <summary>virtio-mmio devices that a spec starts with.</summary>
    public static int Mmio(VmSpec spec) => Count(spec, VirtioTransport.Mmio);

    private static int Count(VmSpec spec, VirtioTransport transport)
    {
        int count = 0;
        foreach (DiskSpec disk in spec.Disks)
        {
            count += (disk.Transport ?? spec.VirtioTransport) == transport ? 1 : 0;
        }

        foreach (NetSpec net in spec.Nets)
        {
            count += (net.Transport ?? spec.VirtioTransport) == transport ? 1 : 0;
        }

        if (spec.VirtioTransport != transport)
        {
            return count;
        }

        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            count += vnode.HotMemory > ByteSize.Zero ? 1 : 0; // its virtio-mem device
        }

        return count + (spec.Rng ? 1 : 0) + (spec.Balloon is null ? 0 : 1) + (spec.Console == ConsoleKind.Serial ? 0 : 1) + (spec.Vsock is null ? 0 : 1);
    }
}
