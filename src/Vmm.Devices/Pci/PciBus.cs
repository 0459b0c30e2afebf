namespace Vmm.Devices.Pci;

/// <summary>The slots of one bus, and how its functions reach memory. Under the lock of <see cref="PciHostBridge"/>.</summary>
/// <param name="upstream">The bridge it is behind; null for the host bridge's bus.</param>
/// <param name="bars">Where BARs of devices that are there at the start go; null: the caller says.</param>
internal sealed class PciBus(PciBridge? upstream, BarAllocator? bars)
{
    private readonly PciFunction?[] _slots = new PciFunction?[PciHostBridge.Slots];

    /// <summary>Where BARs of devices that are there at the start go.</summary>
    internal BarAllocator? Bars => bars;

    /// <summary>The number that the guest gave it, or that it has from the start.</summary>
    internal int Number => upstream?.SecondaryBus ?? 0;

    /// <summary>It is not the host bridge's.</summary>
    internal bool IsBehindBridge => upstream is not null;

    /// <summary>The function in a slot.</summary>
    internal PciFunction? this[int slot]
    {
        get => _slots[slot];
        set => _slots[slot] = value;
    }

    /// <summary>Bit n for a function in slot n.</summary>
    internal uint Taken
    {
        get
        {
            uint taken = 0;
            for (int slot = 0; slot < _slots.Length; slot++)
            {
                taken |= _slots[slot] is null ? 0 : 1u << slot;
            }

            return taken;
        }
    }

    /// <summary>Lowest free slot; -1 when there is none.</summary>
    internal int FreeSlot => Array.IndexOf(_slots, null);

    /// <summary>What is in the slots.</summary>
    internal IEnumerable<PciFunction> Functions
    {
        get
        {
            foreach (PciFunction? function in _slots)
            {
                if (function is not null)
                {
                    yield return function;
                }
            }
        }
    }

    /// <summary>Memory accesses to the range reach the bus.</summary>
    internal bool Forwards(ulong address, ulong length) => upstream is null || upstream.Forwards(address, length);

    /// <summary>Memory accesses of its functions reach the host bridge.</summary>
    internal bool AllowsBusMasters => upstream is null || upstream.AllowsBusMasters;
}
