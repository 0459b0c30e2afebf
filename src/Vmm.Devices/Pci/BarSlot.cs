using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>A BAR in the configuration space of its function: the address that software wrote, and where it is mapped. Under the lock of the configuration.</summary>
/// <param name="index">Register of its low half, 0 to 5.</param>
/// <param name="bar">What it is.</param>
/// <param name="config">The configuration space that holds its address.</param>
internal sealed class BarSlot(int index, Bar bar, PciConfigSpace config)
{
    private const ulong LowMask = 0xFFFF_FFF0;

    internal int Index => index;

    internal Bar Bar => bar;

    /// <summary>Where it answers now.</summary>
    internal GuestAddress? MappedAt { get; private set; }

    /// <summary>Who gave it the address that it had at the start, and that address.</summary>
    internal (BarAllocator Allocator, ulong Address)? Reserved { get; set; }

    private int Offset => 0x10 + (4 * index);

    private ulong Address => (config.U32(Offset) & LowMask) | (bar.IsWide ? (ulong)config.U32(Offset + 4) << 32 : 0);

    /// <summary>Writes its registers, as reset or firmware does.</summary>
    internal void Assign(ulong address)
    {
        config.Set32(Offset, (uint)address | (uint)bar.Kind);
        if (bar.IsWide)
        {
            config.Set32(Offset + 4, (uint)(address >> 32));
        }
    }

    /// <summary>Where software wants it; null where that is no place. While software sizes a BAR, a half of it holds all ones (7.5.1.2.1).</summary>
    internal GuestAddress? Wanted()
    {
        ulong address = Address, sizing = ~(bar.Length - 1) & LowMask;
        bool isSizing = (sizing != 0 && address == sizing) || address >> 32 == uint.MaxValue;
        return address == 0 || isSizing ? null : new GuestAddress(address);
    }

    /// <summary>Makes it answer at an address where it fits; it is not mapped when something else is there.</summary>
    internal bool TryMap(GuestAddress at, IMmioMap mmio, IBarMappings? mappings, string name)
    {
        // First the bus, which knows of every other BAR: a mapping never overlaps one.
        if (!mmio.TryMap(at, bar.Length, bar.Registers, name))
        {
            return false;
        }

        if (bar.Mapping is { } memory && mappings?.TryMap(at, memory.Address, memory.Length, memory.IsReadOnly) != true)
        {
            mmio.Unmap(at);
            return false;
        }

        MappedAt = at;
        return true;
    }

    /// <summary>Undoes <see cref="TryMap"/>.</summary>
    internal void Unmap(IMmioMap mmio, IBarMappings? mappings)
    {
        if (MappedAt is { } at)
        {
            MappedAt = null;
            if (bar.Mapping is not null)
            {
                mappings?.Unmap(at);
            }

            mmio.Unmap(at);
        }
    }
}
