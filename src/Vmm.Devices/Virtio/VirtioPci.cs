using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>
/// A virtio device as a PCI function, modern only (virtio 1.2 section 4.1): one memory BAR with common configuration, ISR, device
/// configuration, notification, MSI-X table and pending bits; and one more for the device's shared memory, if it has any.
/// </summary>
public sealed class VirtioPciFunction : PciFunction
{
    internal const uint BarLength = 0x8000;
    internal const uint CommonOffset = 0, IsrOffset = 0x1000, DeviceOffset = 0x2000, NotifyOffset = 0x3000, TableOffset = 0x4000, PendingOffset = 0x6000;
    private const int StatusRegister = 0x06, StatusInterrupt = 1 << 3; // PCI Express base spec 7.5.1.1.4
    private const int RegistersBar = 0, SharedMemoryBar = 2;
    private const byte CapabilityVendor = 9, CapabilityMsix = 0x11, CapabilityExpress = 0x10;

    private readonly VirtioPciTransport _transport;
    private readonly IDoorbellBinder? _doorbells;
    private readonly int _msixCapability;
    private readonly int _windowCapability;
    private SharedMemoryRegion? _sharedMemory;

    /// <summary>Builds the function. Without <paramref name="doorbells"/> notifications arrive as BAR writes.</summary>
    public VirtioPciFunction(string name, VirtioDevice device, GuestMemory memory, IInterruptMessageFactory interrupts, IDoorbellBinder? doorbells)
        : base(name, 0x1AF4, (ushort)(0x1040 + device.DeviceType), ClassCode(device.DeviceType), 1)
    {
        if (device.SharedMemory.Count > 1)
        {
            throw new InvalidOperationException($"{name}: a virtio-pci function shows one region of shared memory only");
        }

        Config.Set16(0x2C, 0x1AF4);
        Config.Set16(0x2E, (ushort)(0x1040 + device.DeviceType));
        _doorbells = doorbells;
        int vectors = Math.Min(device.QueueSizes.Count + 1, 256);
        VirtioPciTransport? transport = null;
        MsixTable msix = new(vectors, interrupts, this) { Routed = vector => transport!.VectorRouted(vector) };
        _transport = transport = new VirtioPciTransport(device, memory, msix);

        AddVirtioCapability(1, CommonOffset, 56);
        Span<byte> multiplier = [4, 0, 0, 0];
        AddVirtioCapability(2, NotifyOffset, (uint)(4 * _transport.QueueCount), multiplier);
        AddVirtioCapability(3, IsrOffset, 1);
        AddVirtioCapability(4, DeviceOffset, (uint)Math.Max(device.ConfigLength, 4));
        _windowCapability = AddVirtioCapability(5, 0, 0, stackalloc byte[4]);
        Config.Allow32(_windowCapability + 4, 0x0000_00FF); // bar
        Config.Allow32(_windowCapability + 8, uint.MaxValue); // offset
        Config.Allow32(_windowCapability + 12, uint.MaxValue); // length
        Config.Allow32(_windowCapability + 16, uint.MaxValue); // data

        if (device.SharedMemory is [var region, ..])
        {
            AddSharedMemory(region);
        }

        Span<byte> body = stackalloc byte[10];
        BinaryPrimitives.WriteUInt16LittleEndian(body, (ushort)(vectors - 1));
        BinaryPrimitives.WriteUInt32LittleEndian(body[2..], TableOffset);
        BinaryPrimitives.WriteUInt32LittleEndian(body[6..], PendingOffset);
        _msixCapability = Config.AddCapability(CapabilityMsix, body);
        Config.Allow16(_msixCapability + 2, 0xC000);

        // PCI Express capability, version 2, root complex integrated endpoint (PCI Express base spec 7.5.3).
        Span<byte> express = stackalloc byte[58];
        express.Clear();
        express[0] = 0x92;
        Config.AddCapability(CapabilityExpress, express);
        // Reads of some registers have side effects: not prefetchable, so that it is below 4 GiB, where any guest reaches it.
        AddBar(RegistersBar, Bar.OfRegisters(BarKind.Memory64, BarLength, _transport));
    }

    /// <summary>Status and faults of the device, for diagnostics.</summary>
    public VirtioTransport Transport => _transport;

    /// <summary>Its message vectors.</summary>
    public MsixTable Msix => _transport.Msix;

    /// <inheritdoc/>
    protected override void Restored() => _transport.Msix.SetControl(Config.U16(_msixCapability + 2));

    /// <inheritdoc/>
    protected override void ConfigWritten(int offset, int length)
    {
        if (Overlaps(offset, length, _msixCapability + 2, 2))
        {
            _transport.Msix.SetControl(Config.U16(_msixCapability + 2));
        }

        // 4.1.4.9: a write to the data field writes to the BAR.
        if (Overlaps(offset, length, _windowCapability + 16, 4) && Window(out uint at, out int size))
        {
            Span<byte> data = stackalloc byte[4];
            Config.Read(_windowCapability + 16, data);
            _transport.Write(at, data[..size]);
        }
    }

    /// <inheritdoc/>
    protected override void ConfigReading(int offset, int length)
    {
        if (Overlaps(offset, length, StatusRegister, 1))
        {
            int status = Config.U16(StatusRegister) & ~StatusInterrupt;
            Config.Set16(StatusRegister, (ushort)(status | (_transport.InterruptPending ? StatusInterrupt : 0)));
        }

        if (Overlaps(offset, length, _windowCapability + 16, 4) && Window(out uint at, out int size))
        {
            Span<byte> data = stackalloc byte[4];
            data.Clear();
            _transport.Read(at, data[..size]);
            Config.Set32(_windowCapability + 16, BinaryPrimitives.ReadUInt32LittleEndian(data));
        }
    }

    /// <inheritdoc/>
    protected override void Attached(bool behindBridge)
    {
        if (behindBridge)
        {
            Config.Set8(_msixCapability + 1, 0); // the list ends before the PCI Express capability
        }
    }

    /// <inheritdoc/>
    protected override void OnReset()
    {
        Config.Set16(_msixCapability + 2, (ushort)(Config.U16(_msixCapability + 2) & 0x3FFF));
        _transport.Msix.SetControl(Config.U16(_msixCapability + 2));
        _transport.Write(CommonOffset + 20, [0]); // device status (virtio 1.2, 4.1.4.3)
    }

    /// <inheritdoc/>
    protected override void BusMasterChanged(bool allowed) => _transport.AllowTransfers(allowed);

    /// <inheritdoc/>
    protected override void BarMoved(int bar, GuestAddress? at)
    {
        if (bar == RegistersBar)
        {
            MoveDoorbells(at);
        }
        else
        {
            _sharedMemory?.Move(at);
        }
    }

    private void MoveDoorbells(GuestAddress? at)
    {
        if (_doorbells is null)
        {
            return;
        }

        if (_transport.BoundAt is { } old)
        {
            for (int queue = 0; queue < _transport.QueueCount; queue++)
            {
                _doorbells.Unbind(old + NotifyOffset + (4UL * (uint)queue), 0, null, _transport.QueueDoorbell(queue));
            }
        }

        _transport.BoundAt = at;
        if (at is { } place)
        {
            for (int queue = 0; queue < _transport.QueueCount; queue++)
            {
                // Length 0: KVM takes writes of any size without decoding the instruction twice.
                _doorbells.Bind(place + NotifyOffset + (4UL * (uint)queue), 0, null, _transport.QueueDoorbell(queue));
            }
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        MoveDoorbells(null);
        _transport.Dispose();
        _transport.Msix.Release();
        base.Dispose(disposing);
    }

    private static bool Overlaps(int offset, int length, int start, int size) => offset < start + size && offset + length > start;

    private static uint ClassCode(ushort type) => type switch
    {
        1 => 0x020000,  // Ethernet controller
        2 => 0x010000,  // SCSI-like mass storage
        3 => 0x078000,  // communication
        8 => 0x010000,
        _ => 0xFF0000,
    };

    private bool Window(out uint at, out int size)
    {
        at = Config.U32(_windowCapability + 8);
        uint length = Config.U32(_windowCapability + 12);
        size = (int)Math.Min(length, 4);
        return length is 1 or 2 or 4 && at % length == 0 && at < BarLength && (Config.U32(_windowCapability + 4) & 0xFF) == 0;
    }

    /// <summary>A region in a BAR of its own (virtio_pci_cap64, 4.1.4.7). There is room for one such capability.</summary>
    private void AddSharedMemory(SharedMemoryRegion region)
    {
        _sharedMemory = region;
        AddBar(SharedMemoryBar, Bar.OfMemory(region.Memory));
        Span<byte> high = stackalloc byte[8];
        high.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(high[4..], (uint)(region.Memory.Length >> 32));
        int at = AddVirtioCapability(8, 0, (uint)region.Memory.Length, high);
        Config.Set8(at + 4, SharedMemoryBar);
        Config.Set8(at + 5, region.Id);
    }

    private int AddVirtioCapability(byte type, uint offset, uint length, ReadOnlySpan<byte> tail = default)
    {
        Span<byte> body = stackalloc byte[22];
        body.Clear();
        body[0] = (byte)(16 + tail.Length);
        body[1] = type;
        BinaryPrimitives.WriteUInt32LittleEndian(body[6..], offset);
        BinaryPrimitives.WriteUInt32LittleEndian(body[10..], length);
        tail.CopyTo(body[14..]);
        return Config.AddCapability(CapabilityVendor, body[..(14 + tail.Length)]);
    }
}
