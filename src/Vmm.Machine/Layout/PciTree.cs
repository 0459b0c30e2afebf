using Vmm.Devices.Pci;
using Vmm.Spec;

namespace Vmm.Machine.Layout;

/// <summary>
/// The PCI buses of a machine behind bus 0, numbered from 1: behind conventional bridges in its last slots, or each behind a PCI Express
/// root port. Ports are the functions of its last slots, eight in each.
/// </summary>
/// <param name="Count">How many buses.</param>
/// <param name="HasPorts">They are behind ports: one device each, which comes and goes.</param>
/// <param name="Face">What the machine's own functions look like.</param>
internal readonly record struct PciTree(int Count, bool HasPorts, PciFace Face = PciFace.Plain)
{
    private const uint Megabyte = 1 << 20, BridgeWindow = PciHostBridge.Slots * Megabyte, PortWindow = Megabyte;
    private const int LeastPorts = 16, SparePorts = 8;

    /// <summary>
    /// The buses that a spec asks for: for its devices, and for some that come later. At least eight ports more than disks and network
    /// devices, where there is room for them.
    /// </summary>
    /// <param name="spec">A validated spec.</param>
    internal static PciTree For(VmSpec spec)
    {
        if (spec.Hotplug != HotplugWay.Pcie)
        {
            int own = DeviceCount.OwnSlots(spec);
            return new PciTree(DeviceSlots.Bridges(DeviceCount.Pci(spec) + own), HasPorts: false, FaceOf(spec));
        }

        const int Slot = DeviceCount.PortsPerSlot;
        int wanted = Math.Max(LeastPorts, (DeviceCount.Pluggable(spec) + SparePorts + Slot - 1) / Slot * Slot);
        return new PciTree(Math.Min(wanted, DeviceCount.MostPorts(spec)), HasPorts: true, FaceOf(spec));
    }

    /// <summary>What a machine of this spec looks like.</summary>
    internal static PciFace FaceOf(VmSpec spec) => spec.Boot.IsFirmware ? PciFace.Q35 : PciFace.Plain;

    /// <summary>Most buses that there can be, in a description that anybody wrote.</summary>
    internal int Most => HasPorts ? DeviceCount.RootSlots * DeviceCount.PortsPerSlot : PciHostBridge.Slots - 2;

    /// <summary>Bytes of the 32-bit window, from its end, that the windows of the buses take.</summary>
    internal ulong Windows => (ulong)Count * (HasPorts ? PortWindow : BridgeWindow);

    /// <summary>The memory window of a bus.</summary>
    internal (uint Start, uint Length) Window(int bus)
    {
        uint length = HasPorts ? PortWindow : BridgeWindow;
        return ((uint)(MemoryMap.PciWindow32.End.Value - ((ulong)(Count - bus + 1) * length)), length);
    }

    /// <summary>Where the bridge or port to a bus is.</summary>
    internal PciAddress Upstream(int bus)
    {
        if (!HasPorts)
        {
            return new PciAddress(0, PciHostBridge.BridgeSlot(bus, Count, Face));
        }

        int slots = (Count + DeviceCount.PortsPerSlot - 1) / DeviceCount.PortsPerSlot;
        return new PciAddress(
            0, PciHostBridge.LastSlot(Face) + 1 - slots + ((bus - 1) / DeviceCount.PortsPerSlot), (bus - 1) % DeviceCount.PortsPerSlot);
    }

    /// <summary>
    /// The slots of each bus that no device can have, bit n for slot n: the machine's own, those of bridges and ports, and all but the
    /// first behind a port.
    /// </summary>
    internal uint[] NoSlots()
    {
        uint[] taken = new uint[1 + Count];
        taken[0] = Face == PciFace.Q35 ? 1u | (1u << LpcBridge.Slot) : 1;
        for (int bus = 1; bus <= Count; bus++)
        {
            taken[0] |= 1u << Upstream(bus).Slot;
            taken[bus] = HasPorts ? ~1u : 0;
        }

        return taken;
    }
}
