using Vmm.Devices.Pci;
using Vmm.Memory;

namespace Vmm.Devices.Bus;

/// <summary>
/// Ports, or MMIO: who answers at which address. Look-ups take no lock and allocate nothing: the table is immutable, sorted, and replaced
/// whole. Reads of nothing give all ones, writes to nothing vanish, an access that runs over the end of a range is treated as one to
/// nothing.
/// </summary>
public sealed class AddressBus(string name) : IMmioMap
{
    private readonly Lock _change = new();
    private Entry[] _entries = [];

    /// <summary>Number of ranges.</summary>
    public int Count => Volatile.Read(ref _entries).Length;

    /// <summary>Adds a range.</summary>
    /// <exception cref="InvalidOperationException">It overlaps another one; both are named.</exception>
    public void Map(ulong start, ulong length, IBusDevice device, string owner)
    {
        if (!TryInsert(start, length, device, owner, out string? other))
        {
            throw new InvalidOperationException($"{name}: {owner} at 0x{start:x} (0x{length:x} bytes) overlaps {other}.");
        }
    }

    /// <inheritdoc/>
    public bool TryMap(GuestAddress start, ulong length, IBusDevice device, string name) =>
        TryInsert(start.Value, length, device, name, out _);

    /// <inheritdoc/>
    public void Unmap(GuestAddress start)
    {
        lock (_change)
        {
            Volatile.Write(ref _entries, Array.FindAll(_entries, e => e.Start != start.Value));
        }
    }

    /// <summary>Guest read.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        if (Find(address, data.Length) is { } entry)
        {
            entry.Device.Read(address - entry.Start, data);
        }
        else
        {
            data.Fill(0xFF);
        }
    }

    /// <summary>Guest write.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address, data.Length) is { } entry)
        {
            entry.Device.Write(address - entry.Start, data);
        }
    }

    private Entry? Find(ulong address, int length)
    {
        Entry[] entries = Volatile.Read(ref _entries);
        int low = 0, high = entries.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            Entry entry = entries[middle];
            if (address < entry.Start)
            {
                high = middle - 1;
            }
            else if (address - entry.Start >= entry.Length)
            {
                low = middle + 1;
            }
            else
            {
                return (ulong)length <= entry.Length - (address - entry.Start) ? entry : null;
            }
        }

        return null;
    }

    private bool TryInsert(ulong start, ulong length, IBusDevice device, string owner, out string? other)
    {
        lock (_change)
        {
            if (length == 0 || start + (length - 1) < start)
            {
                other = "the end of the address space";
                return false;
            }

            int at = 0;
            foreach (Entry entry in _entries)
            {
                if (start <= entry.Start + (entry.Length - 1) && entry.Start <= start + (length - 1))
                {
                    other = entry.Owner;
                    return false;
                }

                at += entry.Start < start ? 1 : 0;
            }

            Entry[] entries = new Entry[_entries.Length + 1];
            Array.Copy(_entries, entries, at);
            entries[at] = new Entry(start, length, device, owner);
            Array.Copy(_entries, at, entries, at + 1, _entries.Length - at);
            Volatile.Write(ref _entries, entries);
            other = null;
            return true;
        }
    }

    private sealed class Entry(ulong start, ulong length, IBusDevice device, string owner)
    {
        internal ulong Start => start;

        internal ulong Length => length;

        internal IBusDevice Device => device;

        internal string Owner => owner;
    }
}
