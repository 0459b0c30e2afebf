using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Pci;

/// <summary>
/// PCI Express host bridge with one bus: configuration through ECAM (PCI Express base spec 7.2.2) and through ports 0xCF8/0xCFC (PCI 3.0, 3.2.2.3.2).
/// One lock serializes all configuration access, plugging and unplugging; BARs are reached through <see cref="IMmioMap"/> without it.
/// </summary>
public sealed class PciHostBridge : IDisposable
{
    /// <summary>Slots of the bus; the bridge itself is in slot 0.</summary>
    public const int Slots = 32;

    private readonly Lock _gate = new();
    private readonly PciFunction?[] _slots = new PciFunction?[Slots];
    private readonly IMmioMap _mmio;
    private uint _address;

    /// <summary>Creates the bridge with itself as device 0.</summary>
    public PciHostBridge(IMmioMap mmio)
    {
        _mmio = mmio;
        Ecam = new EcamWindow(this);
        ConfigPorts = new PortWindow(this);
        _slots[0] = new HostFunction();
    }

    /// <summary>The ECAM window, to be put on the MMIO bus; offsets are bus:device:function:register.</summary>
    public IBusDevice Ecam { get; }

    /// <summary>Ports 0xCF8 to 0xCFF, to be put on the port bus.</summary>
    public IBusDevice ConfigPorts { get; }

    /// <summary>The slots that hold a function, bit n for slot n. Any thread.</summary>
    public uint Taken
    {
        get
        {
            lock (_gate)
            {
                uint taken = 0;
                for (int slot = 0; slot < _slots.Length; slot++)
                {
                    taken |= _slots[slot] is null ? 0 : 1u << slot;
                }

                return taken;
            }
        }
    }

    /// <summary>Puts a function into the first free slot, gives its BARs addresses inside the window, and enables memory decoding.</summary>
    /// <exception cref="InvalidOperationException">No slot or no address space is left.</exception>
    public int Add(PciFunction function, BarAllocator allocator)
    {
        lock (_gate)
        {
            int slot = FreeSlot(function);
            foreach (PciFunction.BarSlot bar in function.Bars)
            {
                function.AssignBar(bar.Index, allocator.Take(bar.Length, function.Name));
            }

            function.EnableMemory();
            _slots[slot] = function;
            function.Attach(_mmio);
            return slot;
        }
    }

    /// <summary>
    /// Puts a function into the first free slot while the guest runs, as a card comes out of its reset: no BAR has an address, nothing is decoded. The
    /// guest's own driver of the bus assigns addresses (PCI Firmware specification 3.3, 4.6.5). Any thread.
    /// </summary>
    /// <returns>Its slot.</returns>
    /// <exception cref="InvalidOperationException">No slot is free.</exception>
    public int Plug(PciFunction function)
    {
        lock (_gate)
        {
            int slot = FreeSlot(function);
            _slots[slot] = function;
            function.Attach(_mmio);
            return slot;
        }
    }

    /// <summary>
    /// Takes a function out of its slot: from the return on no configuration access reaches it, and its BARs and doorbells are gone from the bus. A vCPU
    /// that found it just before may still be on its way to it. It now belongs to the caller, who disposes it. Any thread.
    /// </summary>
    /// <returns>What was in the slot; null when it was empty, or is the bridge itself.</returns>
    public PciFunction? Unplug(int slot)
    {
        if (slot is <= 0 or >= Slots)
        {
            return null;
        }

        lock (_gate)
        {
            PciFunction? function = _slots[slot];
            _slots[slot] = null;
            function?.Detach();
            return function;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PciFunction? function in _slots)
        {
            function?.Dispose();
        }
    }

    private int FreeSlot(PciFunction function)
    {
        int slot = Array.IndexOf(_slots, null);
        return slot >= 0 ? slot : throw new InvalidOperationException($"{function.Name}: all {Slots} PCI slots are taken.");
    }

    private void Read(int slot, int function, int offset, Span<byte> data)
    {
        lock (_gate)
        {
            if (function == 0 && offset + data.Length <= PciConfigSpace.Size && _slots[slot] is { } target)
            {
                target.ReadConfig(offset, data);
                return;
            }
        }

        data.Fill(0xFF);
    }

    private void Write(int slot, int function, int offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            if (function == 0 && offset + data.Length <= PciConfigSpace.Size && _slots[slot] is { } target)
            {
                target.WriteConfig(offset, data);
            }
        }
    }

    private sealed class HostFunction() : PciFunction("host bridge", 0x1B36, 0x0008, 0x060000, 0);

    private sealed class EcamWindow(PciHostBridge bridge) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            if (offset >> 20 != 0)
            {
                data.Fill(0xFF); // only bus 0 exists
                return;
            }

            bridge.Read((int)(offset >> 15) & 31, (int)(offset >> 12) & 7, (int)offset & 0xFFF, data);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            if (offset >> 20 == 0)
            {
                bridge.Write((int)(offset >> 15) & 31, (int)(offset >> 12) & 7, (int)offset & 0xFFF, data);
            }
        }
    }

    private sealed class PortWindow(PciHostBridge bridge) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            uint address = Volatile.Read(ref bridge._address);
            if (offset < 4)
            {
                Span<byte> latch = stackalloc byte[16];
                latch.Fill(0xFF);
                BinaryPrimitives.WriteUInt32LittleEndian(latch, address);
                latch.Slice((int)offset, Math.Min(data.Length, 8)).CopyTo(data);
            }
            else if (offset < 8 && (address & 0x80FF_0000) == 0x8000_0000)
            {
                bridge.Read((int)(address >> 11) & 31, (int)(address >> 8) & 7, (int)((address & 0xFC) + (offset - 4)), data);
            }
            else
            {
                data.Fill(0xFF);
            }
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            uint address = Volatile.Read(ref bridge._address);
            if (offset == 0 && data.Length == 4)
            {
                Volatile.Write(ref bridge._address, BinaryPrimitives.ReadUInt32LittleEndian(data));
            }
            else if (offset is >= 4 and < 8 && (address & 0x80FF_0000) == 0x8000_0000)
            {
                bridge.Write((int)(address >> 11) & 31, (int)(address >> 8) & 7, (int)((address & 0xFC) + (offset - 4)), data);
            }
        }
    }
}

/// <summary>Hands out naturally aligned BAR addresses from the 32-bit PCI window.</summary>
public sealed class BarAllocator(uint start, uint length)
{
    private ulong _next = start;

    /// <summary>Takes <paramref name="size"/> bytes (a power of two).</summary>
    /// <exception cref="InvalidOperationException">The window is full.</exception>
    public uint Take(uint size, string owner)
    {
        // At least a page, so that two functions never share one.
        ulong room = Math.Max(size, 4096);
        ulong at = (_next + room - 1) / room * room;
        if (at + room > (ulong)start + length)
        {
            throw new InvalidOperationException($"{owner}: the 32-bit PCI window has no {size} bytes left for a BAR.");
        }

        _next = at + room;
        return (uint)at;
    }
}
