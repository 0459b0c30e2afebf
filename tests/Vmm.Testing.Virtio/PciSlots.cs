using System.Numerics;
using Vmm.Devices.Pci;

namespace Vmm.Testing.Virtio;

/// <summary>Puts functions into the lowest free slot, as machines do.</summary>
public static class PciSlots
{
    public static PciAddress Add(this PciHostBridge bridge, PciFunction function, BarAllocator bars, BarAllocator? high = null)
    {
        PciAddress at = bridge.FreeSlot();
        bridge.Add(function, at, bars, high);
        return at;
    }

    public static PciAddress Plug(this PciHostBridge bridge, PciFunction function)
    {
        PciAddress at = bridge.FreeSlot();
        bridge.Plug(function, at);
        return at;
    }

    private static PciAddress FreeSlot(this PciHostBridge bridge)
    {
        for (int bus = 0; bus < bridge.Buses; bus++)
        {
            if (bridge.Taken(bus) is not uint.MaxValue and uint taken)
            {
                return new PciAddress(bus, BitOperations.TrailingZeroCount(~taken));
            }
        }

        throw new InvalidOperationException("all slots are taken");
    }
}
