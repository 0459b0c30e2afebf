using System.Buffers.Binary;
using Vmm.Devices.Bus;

namespace Vmm.Devices.Pci;

/// <summary>
/// PCI Express host bridge: its own bus, and one more behind each <see cref="PciBridge"/>. Configuration through ECAM (PCI Express base
/// spec 7.2.2) and through ports 0xCF8/0xCFC (PCI 3.0, 3.2.2.3.2). One lock serializes all configuration access, plugging and unplugging;
/// BARs are reached through <see cref="IMmioMap"/> without it.
/// </summary>
public sealed class PciHostBridge : IDisposable
{
    /// <summary>Slots of a bus; the host bridge itself is in slot 0 of bus 0.</summary>
    public const int Slots = 32;

    /// <summary>Interrupt pins of a bus: INTA to INTD.</summary>
    public const int IntxLines = 4;

    private readonly Lock _gate = new();
    private readonly List<PciBus> _buses = []; // by the numbers they have from the start
    private readonly VanishedBars _bars;
    private readonly MemoryController? _controller;
    private uint _address;

    /// <summary>Creates the bridge with itself as device 0.</summary>
    /// <param name="mmio">Where BARs become reachable.</param>
    /// <param name="behind">The memory windows of the bridges: buses 1, 2, … are behind them. Whole numbers of MiB.</param>
    public PciHostBridge(IMmioMap mmio, params ReadOnlySpan<(uint Start, uint Length)> behind) : this(mmio, PciFace.Plain, behind)
    {
    }

    /// <inheritdoc cref="PciHostBridge(IMmioMap, ReadOnlySpan{ValueTuple{uint, uint}})"/>
    /// <param name="mmio">Where BARs become reachable.</param>
    /// <param name="face">What it looks like.</param>
    /// <param name="behind">The memory windows of the bridges: buses 1, 2, … are behind them. Whole numbers of MiB.</param>
    public PciHostBridge(IMmioMap mmio, PciFace face, params ReadOnlySpan<(uint Start, uint Length)> behind)
    {
        _bars = new VanishedBars(mmio);
        Ecam = new EcamWindow(this);
        ConfigPorts = new PortWindow(this);
        if (face == PciFace.Q35)
        {
            _controller = new MemoryController { Moved = at => EcamMoved?.Invoke(at) };
            _buses.Add(new PciBus(PciBusKind.Root) { [0, 0] = _controller, [LpcBridge.Slot, 0] = LpcBridge.Create() });
        }
        else
        {
            _buses.Add(new PciBus(PciBusKind.Root) { [0, 0] = new HostFunction() });
        }

        for (int i = 0; i < behind.Length; i++)
        {
            int slot = BridgeSlot(i + 1, behind.Length, face);
            AddBridge(new ConventionalBridge(new BehindBridge(i + 1, behind[i].Start, behind[i].Length), slot), new PciAddress(0, slot));
        }
    }

    /// <summary>Adds a PCI Express port with an empty slot, before the guest starts. The bus behind it has the next number.</summary>
    /// <param name="at">Where it is on bus 0.</param>
    /// <param name="start">First address of its memory window, a whole number of MiB.</param>
    /// <param name="length">Bytes of the window, a whole number of MiB.</param>
    /// <exception cref="InvalidOperationException">Something is there, or there is no such place.</exception>
    public void AddRootPort(PciAddress at, uint start, uint length)
    {
        lock (_gate)
        {
            PciRootPort port = new(new BehindBridge(_buses.Count, start, length), at.Slot, tellsRoom: _controller is not null);
            _ = FreeBus(port, at);
            AddBridge(port, at);
        }
    }

    /// <summary>Where memory behind BARs becomes the guest's; without it such BARs never answer.</summary>
    public IBarMappings? Mappings { get; init; }

    /// <summary>
    /// Level-triggered lines that the interrupt pins of functions lead to: line n of <see cref="IntxLine"/> is number n modulo their
    /// count. Without any, functions have no pin.
    /// </summary>
    public IReadOnlyList<WiredOr> Lines { get; init; } = [];

    /// <summary>Which of four lines a pin of a slot of bus 0 leads to, as the guest's tables say.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="pin">0 to 3 for INTA to INTD.</param>
    public static int IntxLine(int slot, int pin) => (slot + pin) % IntxLines;

    /// <summary>The slot on bus 0 of the bridge to a bus: they fill the last slots.</summary>
    /// <param name="bus">1 to <paramref name="bridges"/>.</param>
    /// <param name="bridges">How many bridges there are.</param>
    /// <param name="face">What the machine looks like: in the last slot there may be something else.</param>
    public static int BridgeSlot(int bus, int bridges, PciFace face = PciFace.Plain) => LastSlot(face) - bridges + bus;

    /// <summary>The last slot of bus 0 that bridges and ports can have.</summary>
    public static int LastSlot(PciFace face) => face == PciFace.Q35 ? LpcBridge.Slot - 1 : Slots - 1;

    /// <summary>
    /// Called when a guest of <see cref="PciFace.Q35"/> moved ECAM to that address, or took it away (null); also after a restore. Under the
    /// lock of the configuration, on the thread that did it.
    /// </summary>
    public Action<ulong?>? EcamMoved { get; set; }

    /// <summary>Where the guest of a <see cref="PciFace.Q35"/> put ECAM; null: nowhere yet. Any thread.</summary>
    public ulong? EcamPlace
    {
        get
        {
            lock (_gate)
            {
                return _controller?.Ecam;
            }
        }
    }

    /// <summary>
    /// Called with the bus of a root port whose guest let go of the device that it was asked for: on the thread of whoever did the last
    /// step, a vCPU's or the host's, without a lock, at most once for each device.
    /// </summary>
    internal Action<int>? Ejected { get; set; }

    /// <summary>Number of buses.</summary>
    public int Buses => _buses.Count;

    /// <summary>The ECAM window, to be put on the MMIO bus; offsets are bus:device:function:register.</summary>
    public IBusDevice Ecam { get; }

    /// <summary>Ports 0xCF8 to 0xCFF, to be put on the port bus.</summary>
    public IBusDevice ConfigPorts { get; }

    /// <summary>Does something to the root port that a bus is behind. Any thread.</summary>
    /// <exception cref="InvalidOperationException">There is no such port.</exception>
    internal void WithPort(int bus, Action<PciRootPort> action) => WithPort(bus, port =>
    {
        action(port);
        return true;
    });

    /// <inheritdoc cref="WithPort(int, Action{PciRootPort})"/>
    internal T WithPort<T>(int bus, Func<PciRootPort, T> action)
    {
        bool ejected;
        T result;
        lock (_gate)
        {
            PciRootPort port = (bus > 0 && bus < _buses.Count ? _buses[bus].Upstream as PciRootPort : null)
                ?? throw new InvalidOperationException($"no PCI Express port leads to bus {bus}");
            result = action(port);
            ejected = port.TakeEjected();
        }

        if (ejected)
        {
            Ejected?.Invoke(bus);
        }

        return result;
    }

    /// <summary>The slots of a bus that have a function, bit n for slot n. Any thread.</summary>
    public uint Taken(int bus)
    {
        lock (_gate)
        {
            return _buses[bus].Taken;
        }
    }

    /// <summary>
    /// Puts a function onto the bus before the guest starts, gives its BARs addresses inside the windows, and enables memory decoding.
    /// </summary>
    /// <param name="function">What is plugged.</param>
    /// <param name="at">Where: it is for the caller to choose.</param>
    /// <param name="rootBars">Addresses for BARs on bus 0; the other buses have their own.</param>
    /// <param name="highRootBars">Addresses for 64-bit prefetchable BARs on bus 0; null takes them from <paramref
    /// name="rootBars"/>.</param>
    /// <exception cref="InvalidOperationException">Something is there, there is no such place, or no address space is left.</exception>
    public void Add(PciFunction function, PciAddress at, BarAllocator rootBars, BarAllocator? highRootBars = null)
    {
        lock (_gate)
        {
            PciBus bus = FreeBus(function, at);
            function.AssignBars(bus.Bars ?? rootBars, bus.Bars is null ? highRootBars : null);
            function.EnableMemory();
            Put(function, bus, at);
        }
    }

    /// <summary>
    /// Puts a function onto the bus while the guest runs, as a card comes out of its reset: no BAR has an address, nothing is decoded. The
    /// guest's own driver of the bus assigns addresses (PCI Firmware specification 3.3, 4.6.5). Any thread.
    /// </summary>
    /// <exception cref="InvalidOperationException">Something is there, or there is no such place.</exception>
    public void Plug(PciFunction function, PciAddress at)
    {
        lock (_gate)
        {
            Put(function, FreeBus(function, at), at);
        }
    }

    /// <summary>
    /// Takes a function off the bus: from the return on no configuration access reaches it, and its BARs and doorbells are gone from the
    /// bus. A vCPU that found it just before may still be on its way to it. It now belongs to the caller, who disposes it. Any thread.
    /// </summary>
    /// <param name="address">Where it is.</param>
    /// <param name="surprise">The guest does not know: its driver may wait for registers (<see cref="VanishedBars"/>).</param>
    /// <returns>What was there; null when nothing was, or it is a bridge.</returns>
    public PciFunction? Unplug(PciAddress address, bool surprise = false)
    {
        if (!IsPlace(address))
        {
            return null;
        }

        lock (_gate)
        {
            PciBus bus = _buses[address.Bus];
            PciFunction? function = bus[address.Slot, address.Function];
            if (function is ChipsetFunction or PciBridge)
            {
                return null;
            }

            bus[address.Slot, address.Function] = null;
            function?.Detach(surprise);
            return function;
        }
    }

    /// <summary>The function at an address; null when none is there. Any thread.</summary>
    public PciFunction? Find(PciAddress at)
    {
        lock (_gate)
        {
            return IsPlace(at) ? _buses[at.Bus][at.Slot, at.Function] : null;
        }
    }

    /// <summary>The state for saving. Any thread.</summary>
    public PciStateV1 Capture()
    {
        lock (_gate)
        {
            return new PciStateV1 { AddressPort = Volatile.Read(ref _address), Functions = new PciStateMap(_buses).Capture() };
        }
    }

    /// <summary>Takes a saved state; no vCPU runs.</summary>
    /// <exception cref="State.StateException">The functions are not those that were saved.</exception>
    public void Restore(PciStateV1 state)
    {
        lock (_gate)
        {
            new PciStateMap(_buses).Restore(state.Functions);
            Volatile.Write(ref _address, state.AddressPort);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PciFunction function in _buses[0].Functions)
        {
            function.Dispose(); // a bridge disposes what is behind it
        }
    }

    private bool IsPlace(PciAddress at) => (uint)at.Bus < (uint)_buses.Count
        && (uint)at.Slot < (uint)_buses[at.Bus].Slots && (uint)at.Function < PciBus.FunctionsPerSlot;

    private void AddBridge(PciBridge bridge, PciAddress at)
    {
        _buses.Add(bridge.Bus);
        Put(bridge, _buses[0], at);
    }

    private PciBus FreeBus(PciFunction function, PciAddress at)
    {
        if (!IsPlace(at))
        {
            throw new InvalidOperationException($"{function.Name}: there is no PCI slot {at}");
        }

        return _buses[at.Bus][at.Slot, at.Function] is { } other
            ? throw new InvalidOperationException($"{function.Name}: {other.Name} is at {at} already")
            : _buses[at.Bus];
    }

    private void Put(PciFunction function, PciBus bus, PciAddress at)
    {
        bus[at.Slot, at.Function] = function;
        function.ConnectPin(Lines, bus.LineOf(at.Slot));
        function.Attach(_bars, Mappings, bus);
    }

    /// <summary>
    /// The function at an address of configuration space, which names buses by the numbers that the guest gave them. Under the lock.
    /// </summary>
    private PciFunction? Target(int number, int slot, int function)
    {
        foreach (PciBus bus in _buses)
        {
            if (bus.Number == number && (number != 0 || bus == _buses[0]))
            {
                return bus.IsLinked && slot < bus.Slots ? bus[slot, function] : null;
            }
        }

        return null;
    }

    private void Read(int bus, int slot, int function, int offset, Span<byte> data)
    {
        lock (_gate)
        {
            if (offset + data.Length <= PciConfigSpace.Size && Target(bus, slot, function) is { } target)
            {
                target.Config.Read(offset, data);
                return;
            }
        }

        data.Fill(0xFF);
    }

    private void Write(int bus, int slot, int function, int offset, ReadOnlySpan<byte> data)
    {
        int? ejected = null;
        lock (_gate)
        {
            if (offset + data.Length <= PciConfigSpace.Size && Target(bus, slot, function) is { } target)
            {
                target.Config.Write(offset, data);
                ejected = target is PciRootPort port && port.TakeEjected() ? _buses.IndexOf(port.Bus) : null;
            }
        }

        if (ejected is { } behind)
        {
            Ejected?.Invoke(behind);
        }
    }

    private sealed class HostFunction() : ChipsetFunction("host bridge", 0x1B36, 0x0008, 0x060000);

    private sealed class EcamWindow(PciHostBridge bridge) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) =>
            bridge.Read((int)(offset >> 20) & 0xFF, (int)(offset >> 15) & 31, (int)(offset >> 12) & 7, (int)offset & 0xFFF, data);

        public void Write(ulong offset, ReadOnlySpan<byte> data) =>
            bridge.Write((int)(offset >> 20) & 0xFF, (int)(offset >> 15) & 31, (int)(offset >> 12) & 7, (int)offset & 0xFFF, data);
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
            else if (offset < 8 && (address & 0x8000_0000) != 0)
            {
                bridge.Read(
                    (int)(address >> 16) & 0xFF,
                    (int)(address >> 11) & 31,
                    (int)(address >> 8) & 7,
                    (int)((address & 0xFC) + (offset - 4)),
                    data);
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
            else if (offset is >= 4 and < 8 && (address & 0x8000_0000) != 0)
            {
                bridge.Write(
                    (int)(address >> 16) & 0xFF,
                    (int)(address >> 11) & 31,
                    (int)(address >> 8) & 7,
                    (int)((address & 0xFC) + (offset - 4)),
                    data);
            }
        }
    }
}
