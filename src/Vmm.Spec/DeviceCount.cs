using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>How many devices a spec starts with, by transport, and the most that a machine has room for.</summary>
public static class DeviceCount
{
    /// <summary>Most devices on virtio-mmio: each has an I/O APIC pin of its own, 5 to 22.</summary>
    public const int MostMmio = 18;

    /// <summary>Most PCI devices: six buses with 31 slots each.</summary>
    public const int MostPci = 186;

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

        count += transport == VirtioTransport.Pci ? spec.Devices.Count : 0;
        if (spec.VirtioTransport != transport)
        {
            return count;
        }

        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            count += vnode.HotMemory > ByteSize.Zero ? 1 : 0; // its virtio-mem device
        }

        return count + (spec.Rng ? 1 : 0) + (spec.Balloon is null ? 0 : 1) + (spec.Console == ConsoleKind.Serial ? 0 : 1)
            + (spec.Vsock is null ? 0 : 1);
    }
}
