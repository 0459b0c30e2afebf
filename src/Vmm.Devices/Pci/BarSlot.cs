using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>
/// A BAR in the configuration space of its function: the address that software wrote, and where it is mapped. Under the lock of the
/// configuration.
/// </summary>
/// <param name="index">Register of its low half, 0 to 5.</param>
/// <param name="bar">What it is.</param>
internal sealed class BarSlot(int index, Bar bar)
{
    private const ulong LowMask = 0xFFFF_FFF0;

    private readonly PciField _low = new(0x10 + (4 * index), 4, (uint)bar.Kind) { Writable = (uint)~(bar.Length - 1) };
    private readonly PciField? _high = bar.IsWide ? new(0x14 + (4 * index), 4, 0) { Writable = (uint)(~(bar.Length - 1) >> 32) } : null;

    internal int Index => index;

    internal Bar Bar => bar;

    /// <summary>Where it answers now.</summary>
    internal GuestAddress? MappedAt { get; private set; }

    /// <summary>Who gave it the address that it had at the start, and that address.</summary>
    internal (BarAllocator Allocator, ulong Address)? Reserved { get; set; }

    private ulong Address => (_low.Value & LowMask) | ((ulong)(_high?.Value ?? 0) << 32);

    /// <summary>Puts its registers into a configuration space.</summary>
    /// <param name="config">The space.</param>
    /// <param name="written">Called after software wrote one of them.</param>
    internal void AddFields(PciConfigSpace config, Action<PciField> written)
    {
        _low.Written = written;
        config.Add(_low);
        if (_high is not null)
        {
            _high.Written = written;
            config.Add(_high);
        }
    }

    /// <summary>Writes its registers, as firmware does.</summary>
    internal void Assign(ulong address)
    {
        _low.Value = (uint)address | (uint)bar.Kind;
        if (_high is not null)
        {
            _high.Value = (uint)(address >> 32);
        }
    }

    /// <summary>
    /// Where software wants it; null where that is no place. While software sizes a BAR, a half of it holds all ones (7.5.1.2.1).
    /// </summary>
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
