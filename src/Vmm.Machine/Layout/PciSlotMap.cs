using System.Numerics;
using Vmm.Devices.Pci;

namespace Vmm.Machine.Layout;

/// <summary>Which PCI slots are taken, and which is next.</summary>
internal sealed class PciSlotMap
{
    private readonly PciTree _tree;
    private readonly uint[] _taken; // by bus, bit n for slot n

    /// <summary>A machine with no devices.</summary>
    /// <param name="tree">Its buses.</param>
    internal PciSlotMap(PciTree tree) => (_tree, _taken) = (tree, tree.NoSlots());

    /// <summary>A machine with these devices.</summary>
    /// <param name="tree">Its buses.</param>
    /// <param name="bridge">What is in their slots.</param>
    internal PciSlotMap(PciTree tree, PciHostBridge bridge) : this(tree)
    {
        for (int bus = 0; bus < _taken.Length; bus++)
        {
            _taken[bus] |= bridge.Taken(bus);
        }
    }

    /// <summary>
    /// Takes the lowest free slot, bus after bus. With ports, what comes and goes is behind one of them, and nothing else is.
    /// </summary>
    /// <param name="onRootBus">Bus 0 only: bridges forward 32-bit addresses only, and a window behind one is small.</param>
    /// <param name="comesAndGoes">It can be plugged and unplugged.</param>
    /// <returns>The slot; null when all are taken.</returns>
    internal PciAddress? TakeNext(bool onRootBus, bool comesAndGoes)
    {
        int first = _tree.HasPorts && comesAndGoes ? 1 : 0;
        int end = onRootBus || (_tree.HasPorts && !comesAndGoes) ? 1 : _taken.Length;
        for (int bus = first; bus < end; bus++)
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
    /// Takes a function of a slot that is not one of the machine's own; false when there is no such place for it, or it is taken.
    /// </summary>
    internal bool TryTake(PciAddress at, bool comesAndGoes)
    {
        if (at.Bus < 0 || at.Bus >= _taken.Length || at.Slot is < 0 or >= PciHostBridge.Slots || at.Function != 0
            || (_taken[at.Bus] & (1u << at.Slot)) != 0 || (_tree.HasPorts && comesAndGoes != at.Bus > 0))
        {
            return false;
        }

        _taken[at.Bus] |= 1u << at.Slot;
        return true;
    }
}
