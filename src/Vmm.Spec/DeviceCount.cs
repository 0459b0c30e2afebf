using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>How many devices a spec starts with, by transport, and the most that a machine has room for.</summary>
public static class DeviceCount
{
    /// <summary>Most devices on virtio-mmio: each has an I/O APIC pin of its own, 5 to 22.</summary>
    public const int MostMmio = 18;

    /// <summary>Most PCI devices: six buses with 31 slots each.</summary>
    public const int MostPci = 186;

    /// <summary>Slots of bus 0 beside the host bridge's.</summary>
    public const int RootSlots = 31;

    /// <summary>PCI Express root ports that one slot of bus 0 holds, as its functions.</summary>
    public const int PortsPerSlot = 8;

    /// <summary>PCI devices that a spec starts with.</summary>
    public static int Pci(VmSpec spec) => Pluggable(spec) + Fixed(spec);

    /// <summary>virtio-mmio devices that a spec starts with.</summary>
    public static int Mmio(VmSpec spec) => PluggableOn(spec, VirtioTransport.Mmio) + FixedOn(spec, VirtioTransport.Mmio);

    /// <summary>PCI devices that can come and go: disks and network devices.</summary>
    public static int Pluggable(VmSpec spec) => PluggableOn(spec, VirtioTransport.Pci);

    /// <summary>PCI devices that stay.</summary>
    public static int Fixed(VmSpec spec) => FixedOn(spec, VirtioTransport.Pci) + spec.Devices.Count;

    /// <summary>Root ports that there is room for beside devices that stay, which are on bus 0 as the ports are.</summary>
    public static int MostPorts(VmSpec spec) => Math.Max(0, RootSlots - OwnSlots(spec) - Fixed(spec)) * PortsPerSlot;

    /// <summary>
    /// Slots of bus 0 beside the host bridge's that the machine has for itself: one that starts by firmware has an LPC bridge.
    /// </summary>
    public static int OwnSlots(VmSpec spec) => spec.Boot.IsFirmware ? 1 : 0;

    private static int PluggableOn(VmSpec spec, VirtioTransport transport)
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

        return count;
    }

    private static int FixedOn(VmSpec spec, VirtioTransport transport)
    {
        if (spec.VirtioTransport != transport)
        {
            return 0;
        }

        int count = 0;
        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            count += vnode.HotMemory > ByteSize.Zero ? 1 : 0; // its virtio-mem device
        }

        return count + (spec.Rng ? 1 : 0) + (spec.Balloon is null ? 0 : 1) + (spec.Console == ConsoleKind.Serial ? 0 : 1)
            + (spec.Vsock is null ? 0 : 1) + (spec.GuestAgent ? 1 : 0) + spec.Shares.Count;
    }
}
