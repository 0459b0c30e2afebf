using System.Numerics;
using Vmm.Devices.Pci;

namespace Vmm.Machine.Layout;

/// <summary>Which PCI slots are taken, and which is next.</summary>
internal sealed class PciSlotMap
{
    private readonly uint[] _taken; // by bus, bit n for slot n

    /// <param name="taken">The slots of each bus that have a function, bit n for slot n.</param>
    internal PciSlotMap(uint[] taken) => _taken = taken;

    /// <summary>A machine with no devices: the host bridge is in slot 0 of bus 0, the bridges in its last slots.</summary>
    internal PciSlotMap(int bridges)
    {
        _taken = new uint[1 + bridges];
        _taken[0] = 1;
        for (int bus = 1; bus <= bridges; bus++)
        {
            _taken[0] |= 1u << PciHostBridge.BridgeSlot(bus, bridges);
        }
    }

    /// <summary>Takes the lowest free slot, bus after bus.</summary>
    /// <param name="onRootBus">Bus 0 only: bridges forward 32-bit addresses only, and a window behind one is small.</param>
    /// <returns>The slot; null when all are taken.</returns>
    internal PciAddress? TakeNext(bool onRootBus)
    {
        for (int bus = 0; bus < (onRootBus ? 1 : _taken.Length); bus++)
        {
            if (_taken[bus] != uint.MaxValue)
            {
                int slot = BitOperations.TrailingZeroCount(~_taken[bus]);
                _taken[bus] |= 1u << slot;
                return new PciAddress(bus, slot);
            }
        }

        return null;
    }

    /// <summary>
    /// Takes a function of a slot that is not one of the machine's own; false when there is no such place or it is taken.
    /// </summary>
    internal bool TryTake(PciAddress at)
    {
        if (at.Bus < 0 || at.Bus >= _taken.Length || at.Slot is < 0 or >= PciHostBridge.Slots || at.Function != 0
            || (_taken[at.Bus] & (1u << at.Slot)) != 0)
        {
            return false;
        }

        _taken[at.Bus] |= 1u << at.Slot;
        return true;
    }
}
