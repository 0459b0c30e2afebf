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
    internal const uint CommonOffset = 0, IsrOffset = 0x1000, DeviceOffset = 0x2000, NotifyOffset = 0x3000, TableOffset = 0x4000,
        PendingOffset = 0x6000;
    private const int RegistersBar = 0, SharedMemoryBar = 2;
    private const byte CapabilityVendor = 9, CapabilityMsix = 0x11;

    private readonly VirtioPciTransport _transport;
    private readonly IDoorbellBinder? _doorbells;
    private readonly PciCapability _msix;
    private readonly ExpressCapability _express;
    private readonly PciField _msixControl, _windowBar, _windowOffset, _windowLength;
    private SharedMemoryRegion? _sharedMemory;

    /// <summary>Builds the function. Without <paramref name="doorbells"/> notifications arrive as BAR writes.</summary>
    public VirtioPciFunction(
        string name, VirtioDevice device, GuestMemory memory, IInterruptMessageFactory interrupts, IDoorbellBinder? doorbells)
        : base(name, 0x1AF4, (ushort)(0x1040 + device.DeviceType), ClassCode(device.DeviceType), 1)
    {
        if (device.SharedMemory.Count > 1)
        {
            throw new InvalidOperationException($"{name}: a virtio-pci function shows one region of shared memory only");
        }

        Config.Add(new PciField(0x2C, 2, 0x1AF4));                            // subsystem vendor
        Config.Add(new PciField(0x2E, 2, (uint)(0x1040 + device.DeviceType))); // subsystem
        _doorbells = doorbells;
        int vectors = Math.Min(device.QueueSizes.Count + 1, 256);
        VirtioPciTransport? transport = null;
        MsixTable msix = new(vectors, interrupts, this) { Routed = vector => transport!.VectorRouted(vector) };
        _transport = transport = new VirtioPciTransport(device, memory, msix);
        _transport.Intx = AddInterruptPin(() => transport.InterruptPending);

        Place(AddVirtioCapability(1, 16), RegistersBar, CommonOffset, 56);
        PciCapability notify = AddVirtioCapability(2, 20);
        Place(notify, RegistersBar, NotifyOffset, (uint)(4 * _transport.QueueCount));
        notify.Add(16, 4, 4); // bytes from queue to queue
        Place(AddVirtioCapability(3, 16), RegistersBar, IsrOffset, 1);
        Place(AddVirtioCapability(4, 16), RegistersBar, DeviceOffset, (uint)Math.Max(device.ConfigLength, 4));

        // A window for those who cannot reach the BAR (4.1.4.9).
        PciCapability window = AddVirtioCapability(5, 20);
        _windowBar = window.Add(4, 1, 0, 0xFF);
        _windowOffset = window.Add(8, 4, 0, uint.MaxValue);
        _windowLength = window.Add(12, 4, 0, uint.MaxValue);
        PciField data = window.Add(16, 4, 0, uint.MaxValue);
        (data.Reading, data.Written) = (ReadWindow, WriteWindow);
        if (device.SharedMemory is [var region, ..])
        {
            AddSharedMemory(region);
        }

        _msix = Config.AddCapability(CapabilityMsix, 12);
        _msixControl = _msix.Add(2, 2, (uint)(vectors - 1), 0xC000);
        _msixControl.Written = control => _transport.SetMessageControl((ushort)control.Value);
        _msix.Add(4, 4, TableOffset | RegistersBar);
        _msix.Add(8, 4, PendingOffset | RegistersBar);

        _express = ExpressCapability.OfDevice(Config);
        // Reads of some registers have side effects: not prefetchable, so that it is below 4 GiB, where any guest reaches it.
        AddBar(RegistersBar, Bar.OfRegisters(BarKind.Memory64, BarLength, _transport));
    }

    /// <summary>Status and faults of the device, for diagnostics.</summary>
    public VirtioTransport Transport => _transport;

    /// <summary>Its message vectors.</summary>
    public MsixTable Msix => _transport.Msix;

    /// <inheritdoc/>
    protected override void Restored() => _transport.SetMessageControl((ushort)_msixControl.Value);

    /// <inheritdoc/>
    protected override void Attached(PciBusKind bus)
    {
        if (bus == PciBusKind.Conventional)
        {
            _msix.SetNext(0); // the list ends before the PCI Express capability
        }
        else
        {
            _express.Show(bus);
        }
    }

    /// <inheritdoc/>
    protected override void OnReset()
    {
        _transport.SetMessageControl((ushort)_msixControl.Value);
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

    private static uint ClassCode(ushort type) => type switch
    {
        1 => 0x020000,  // Ethernet controller
        2 => 0x010000,  // SCSI-like mass storage
        3 => 0x078000,  // communication
        8 => 0x010000,
        _ => 0xFF0000,
    };

    private void ReadWindow(PciField data)
    {
        if (Window(out uint at, out int size))
        {
            Span<byte> bytes = stackalloc byte[4];
            bytes.Clear();
            _transport.Read(at, bytes[..size]);
            data.Value = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        }
    }

    private void WriteWindow(PciField data)
    {
        if (Window(out uint at, out int size))
        {
            Span<byte> bytes = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(bytes, data.Value);
            _transport.Write(at, bytes[..size]);
        }
    }

    private bool Window(out uint at, out int size)
    {
        at = _windowOffset.Value;
        uint length = _windowLength.Value;
        size = (int)Math.Min(length, 4);
        return length is 1 or 2 or 4 && at % length == 0 && at < BarLength && _windowBar.Value == RegistersBar;
    }

    /// <summary>A region in a BAR of its own (virtio_pci_cap64, 4.1.4.7). There is room for one such capability.</summary>
    private void AddSharedMemory(SharedMemoryRegion region)
    {
        _sharedMemory = region;
        AddBar(SharedMemoryBar, Bar.OfMemory(region.Memory));
        PciCapability capability = AddVirtioCapability(8, 24);
        Place(capability, SharedMemoryBar, 0, (uint)region.Memory.Length);
        capability.Add(5, 1, region.Id);
        capability.Add(16, 4, 0); // upper half of the offset
        capability.Add(20, 4, (uint)(region.Memory.Length >> 32));
    }

    /// <summary>The head of a vendor-specific capability (virtio_pci_cap, 4.1.4).</summary>
    private PciCapability AddVirtioCapability(byte type, byte length)
    {
        PciCapability capability = Config.AddCapability(CapabilityVendor, length);
        capability.Add(2, 1, length);
        capability.Add(3, 1, type);
        return capability;
    }

    private static void Place(PciCapability capability, int bar, uint offset, uint length)
    {
        capability.Add(4, 1, (uint)bar);
        capability.Add(8, 4, offset);
        capability.Add(12, 4, length);
    }
}
