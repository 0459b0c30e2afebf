using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;

namespace Vmm.Testing.Virtio;

/// <summary>The registers of a virtio device as its driver reaches them, whatever the transport.</summary>
public abstract class DriverPort : IDisposable
{
    /// <summary>Called on any thread for each interrupt.</summary>
    public Action? Interrupted { get; set; }

    /// <summary>The transport, for its diagnosis only.</summary>
    public abstract VirtioTransport Transport { get; }

    public abstract byte Status { get; set; }

    /// <summary>Features the device offers.</summary>
    public abstract ulong Offered { get; }

    /// <summary>Interrupts for a changed configuration so far.</summary>
    public abstract int ConfigInterrupts { get; }

    public abstract ushort Size { get; set; }

    public abstract bool Enabled { get; set; }

    public static DriverPort Create(TransportKind kind, VirtioDevice device, GuestRam ram) =>
        kind == TransportKind.Pci ? new PciPort(device, ram.Memory) : new MmioPort(device, ram.Memory);

    public abstract void Accept(ulong features);

    public abstract void Select(uint queue);

    /// <summary>Where the rings of the selected queue are.</summary>
    public abstract void Place(ulong table, ulong driver, ulong device);

    public abstract void Notify(uint queue);

    /// <summary>Interrupts of a queue are wanted, on a vector of its own where there are vectors.</summary>
    public abstract void Listen(int queue);

    public abstract void ReadConfig(int offset, Span<byte> data);

    public abstract void WriteConfig(int offset, ReadOnlySpan<byte> data);

    public abstract void Dispose();

    /// <summary>Lets the guest's accesses reach the bus the way a vCPU makes them.</summary>
    protected static uint Get(AddressBus bus, ulong at, int length)
    {
        Span<byte> data = stackalloc byte[4];
        data.Clear();
        bus.Read(at, data[..length]);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    protected static void Put(AddressBus bus, ulong at, int length, uint value)
    {
        Span<byte> data = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        bus.Write(at, data[..length]);
    }
}

public enum TransportKind
{
    Pci,
    Mmio,
}
