using System.Collections.Concurrent;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Memory;

namespace Vmm.Testing.Virtio;

/// <summary>A driver of virtio-pci (virtio 1.2 section 4.1) with MSI-X: vector 0 for the configuration, vector n + 1 for queue n.</summary>
public sealed class PciPort : DriverPort, IInterruptMessageFactory
{
    public const ulong Bar = 0xC000_0000, Ecam = 0xE000_0000, Slot = Ecam + (1 << 15);
    public const ulong IsrAt = 0x1000, ConfigAt = 0x2000, NotifyAt = 0x3000, TableAt = 0x4000, PendingAt = 0x6000;

    /// <summary>Configuration space of the root port of one that is behind one.</summary>
    public const ulong RootPort = Ecam + (31 << 15);

    private const uint PortWindow = 1 << 20;
    private readonly PciHostBridge _bridge;
    private readonly VirtioPciFunction _function;
    private readonly int _queues;
    private readonly PinLevel _pin = new();

    /// <param name="device">The device.</param>
    /// <param name="memory">Its guest's memory.</param>
    /// <param name="behindPort">Behind a root port whose window starts at <see cref="Bar"/>, on bus 1; else in slot 1 of bus 0.</param>
    public PciPort(VirtioDevice device, GuestMemory memory, bool behindPort = false)
    {
        _queues = device.QueueSizes.Count;
        _bridge = new PciHostBridge(Bus) { Lines = [new WiredOr(_pin)] };
        Bus.Map(Ecam, 1 << 28, _bridge.Ecam, "ECAM");
        Ports.Map(0xCF8, 8, _bridge.ConfigPorts, "configuration ports");
        _function = new VirtioPciFunction("hostile", device, memory, this, null);
        if (behindPort)
        {
            FunctionConfig = Ecam + (1 << 20);
            _bridge.AddRootPort(new PciAddress(0, 31), (uint)Bar, PortWindow);
            Hotplug = new PciPortHotplug(_bridge, bus => Hotplug!.Added(bus)); // what the guest lets go of comes again
            _bridge.Add(_function, new PciAddress(1, 0), new BarAllocator(0xD000_0000, PortWindow));
            Hotplug.Allow(1);
        }
        else
        {
            _bridge.Add(_function, new BarAllocator((uint)Bar, 0x2000_0000));
        }

        EnableBus();
    }

    public AddressBus Bus { get; } = new("MMIO");

    public AddressBus Ports { get; } = new("ports");

    /// <summary>Configuration space of the function.</summary>
    public ulong FunctionConfig { get; } = Slot;

    /// <summary>The host's half of the root port; null: it is not behind one.</summary>
    public PciPortHotplug? Hotplug { get; }

    /// <summary>Messages sent so far, by vector.</summary>
    public ConcurrentDictionary<int, int> Sent { get; } = new();

    /// <summary>Where messages go, by vector.</summary>
    public ConcurrentDictionary<int, (ulong Address, uint Data)> Routes { get; } = new();

    /// <summary>The level of its interrupt pin.</summary>
    public bool IsPinHigh => _pin.High;

    public PciFunction Function => _function;

    public PciHostBridge Bridge => _bridge;

    public override VirtioTransport Transport => _function.Transport;

    public override byte Status
    {
        get => (byte)Read(20, 1);
        set => Write(20, 1, value);
    }

    public override ulong Offered
    {
        get
        {
            Write(0, 4, 1);
            ulong high = Read(4, 4);
            Write(0, 4, 0);
            return Read(4, 4) | (high << 32);
        }
    }

    public override int ConfigInterrupts => Sent.GetValueOrDefault(0);

    public override ushort Size
    {
        get => (ushort)Read(24, 2);
        set => Write(24, 2, value);
    }

    public override bool Enabled
    {
        get => Read(28, 2) != 0;
        set => Write(28, 2, value ? 1u : 0);
    }

    /// <summary>Offset of a capability in the configuration space; of virtio's by its type.</summary>
    public int Capability(byte id, byte type = 0)
    {
        for (int at = (int)Config(0x34, 1); at != 0; at = (int)Config(at + 1, 1))
        {
            if (Config(at, 1) == id && (id != 9 || Config(at + 3, 1) == type))
            {
                return at;
            }
        }

        throw new InvalidOperationException($"there is no capability {id}/{type}");
    }

    /// <summary>The root port as firmware left it, its slot with power.</summary>
    public void EnablePort()
    {
        Put(Bus, RootPort + 0x3E, 2, 0);
        Put(Bus, RootPort + 4, 2, 6);
        Put(Bus, RootPort + 0x18, 4, 0x0001_0100);
        Put(Bus, RootPort + 0x20, 4, ((uint)Bar >> 16) | ((uint)Bar & 0xFFF0_0000));
        ulong express = RootPort + Get(Bus, RootPort + 0x34, 1);
        Put(Bus, express + 0x10, 2, 0);
        Put(Bus, express + 0x18, 2, 0x100);
        Put(Bus, express + 0x1A, 2, 0xFFFF);
    }

    /// <summary>Memory space and bus master on, the BAR at its place, MSI-X on with every vector routed and open.</summary>
    public void EnableBus()
    {
        PutConfig(4, 4, 0);
        PutConfig(0x10, 4, (uint)Bar);
        PutConfig(0x14, 4, 0); // the upper half of its address
        PutConfig(4, 4, 6);
        PutConfig(Capability(0x11) + 2, 2, 0x8000);
        for (uint vector = 0; vector <= _queues; vector++)
        {
            ulong entry = TableAt + (16 * vector);
            Write(entry + 12, 4, 1);
            Write(entry, 4, 0xFEE0_0000);
            Write(entry + 4, 4, 0);
            Write(entry + 8, 4, 0x40 + vector);
            Write(entry + 12, 4, 0);
        }
    }

    public override void Accept(ulong features)
    {
        Write(8, 4, 0);
        Write(12, 4, (uint)features);
        Write(8, 4, 1);
        Write(12, 4, (uint)(features >> 32));
        Write(16, 2, 0); // the vector of the configuration
    }

    public override void Select(uint queue) => Write(22, 2, queue);

    public override void Place(ulong table, ulong driver, ulong device)
    {
        ulong at = 32;
        foreach (ulong part in (ReadOnlySpan<ulong>)[table, driver, device])
        {
            Write(at, 4, (uint)part);
            Write(at + 4, 4, (uint)(part >> 32));
            at += 8;
        }
    }

    public override void Notify(uint queue) => Write(NotifyAt + (4UL * queue), 2, queue);

    public override void Listen(int queue) => Write(26, 2, (uint)queue + 1);

    public override void ReadConfig(int offset, Span<byte> data) => Bus.Read(Bar + ConfigAt + (ulong)offset, data);

    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => Bus.Write(Bar + ConfigAt + (ulong)offset, data);

    public uint Read(ulong register, int length) => Get(Bus, Bar + register, length);

    public void Write(ulong register, int length, uint value) => Put(Bus, Bar + register, length, value);

    public uint Config(int register, int length = 4) => Get(Bus, FunctionConfig + (ulong)register, length);

    public void PutConfig(int register, int length, uint value) => Put(Bus, FunctionConfig + (ulong)register, length, value);

    public IInterruptMessage Route(object device, int slot, ulong address, uint data)
    {
        Routes[slot] = (address, data);
        return new Message(this, slot);
    }

    public void Release(object device) { }

    public override void Dispose() => _bridge.Dispose();

    private sealed class PinLevel : IInterruptLine
    {
        internal volatile bool High;

        public void Set(bool level) => High = level;
    }

    private sealed class Message(PciPort port, int slot) : IInterruptMessage
    {
        public void Signal()
        {
            port.Sent.AddOrUpdate(slot, 1, (_, n) => n + 1);
            port.Interrupted?.Invoke();
        }
    }
}
