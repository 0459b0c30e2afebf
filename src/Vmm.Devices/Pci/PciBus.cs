namespace Vmm.Devices.Pci;

/// <summary>The slots of one bus, and how its functions reach memory. Under the lock of <see cref="PciHostBridge"/>.</summary>
/// <param name="kind">What it is.</param>
/// <param name="upstream">The bridge it is behind; null for the host bridge's bus.</param>
/// <param name="bars">Where BARs of devices that are there at the start go; null: the caller says.</param>
/// <param name="upstreamSlot">The slot of that bridge, on bus 0.</param>
/// <param name="slots">How many slots it has, from 0.</param>
internal sealed class PciBus(
    PciBusKind kind, PciBridge? upstream = null, BarAllocator? bars = null, int upstreamSlot = 0, int slots = PciHostBridge.Slots)
{
    /// <summary>Functions that a slot can have.</summary>
    internal const int FunctionsPerSlot = 8;

    private readonly PciFunction?[] _functions = new PciFunction?[slots * FunctionsPerSlot];

    /// <summary>How many slots it has, from 0.</summary>
    internal int Slots => slots;

    /// <summary>What it is.</summary>
    internal PciBusKind Kind => kind;

    /// <summary>The bridge it is behind; null for the host bridge's bus.</summary>
    internal PciBridge? Upstream => upstream;

    /// <summary>Where BARs of devices that are there at the start go.</summary>
    internal BarAllocator? Bars => bars;

    /// <summary>The number that the guest gave it, or that it has from the start.</summary>
    internal int Number => upstream?.SecondaryBus ?? 0;

    /// <summary>Something reaches it.</summary>
    internal bool IsLinked => upstream is not { IsLinked: false };

    /// <summary>
    /// The function with that number in a slot that the bus has. With more than one in it, function 0 says so (PCI Express base spec
    /// 7.5.1.1.9).
    /// </summary>
    internal PciFunction? this[int slot, int function]
    {
        get => _functions[(slot * FunctionsPerSlot) + function];
        set
        {
            _functions[(slot * FunctionsPerSlot) + function] = value;
            ReadOnlySpan<PciFunction?> all = _functions.AsSpan(slot * FunctionsPerSlot, FunctionsPerSlot);
            all[0]?.ShowOthers(all[1..].ContainsAnyExcept((PciFunction?)null));
        }
    }

    /// <summary>Bit n when slot n has any function.</summary>
    internal uint Taken
    {
        get
        {
            uint taken = 0;
            for (int i = 0; i < _functions.Length; i++)
            {
                taken |= _functions[i] is null ? 0 : 1u << (i / FunctionsPerSlot);
            }

            return taken;
        }
    }

    /// <summary>What is in the slots.</summary>
    internal IEnumerable<PciFunction> Functions
    {
        get
        {
            foreach (PciFunction? function in _functions)
            {
                if (function is not null)
                {
                    yield return function;
                }
            }
        }
    }

    /// <summary>
    /// Which of four lines INTA of a slot leads to: the pin turns with the slot, behind a bridge a second time (PCI-to-PCI Bridge
    /// Architecture 1.2, 9.1).
    /// </summary>
    internal int LineOf(int slot) => PciHostBridge.IntxLine(upstreamSlot, slot % PciHostBridge.IntxLines);

    /// <summary>Memory accesses to the range reach the bus.</summary>
    internal bool Forwards(ulong address, ulong length) => upstream is null || upstream.Forwards(address, length);

    /// <summary>Memory accesses of its functions reach the host bridge.</summary>
    internal bool AllowsBusMasters => upstream is null or { IsBusMaster: true, IsLinked: true };
}
