using System.Globalization;
using Vmm.Devices.Acpi;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Machine.Description;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <summary>Where virtio devices of one machine are plugged in: PCI slots behind the host bridge, and virtio-mmio windows.</summary>
internal sealed class VirtioSlots(
    MemoryMap map,
    IBarMappings mappings,
    GuestMemory memory,
    KvmInterrupts interrupts,
    KvmDoorbells doorbells,
    AddressBus mmio,
    PciTree tree,
    int mmioDevices,
    IIoThreads? threads) : IDisposable
{
    private readonly BarAllocator _bars =
        new(MemoryMap.PciWindow32.Start.Value, MemoryMap.PciWindow32.Length - tree.Windows);
    private readonly BarAllocator _highBars = new(map.PciWindow64.Start.Value, map.PciWindow64.Length);
    private readonly List<VirtioMmio> _windows = [];

    /// <summary>The bridge that PCI devices sit behind.</summary>
    internal PciHostBridge Bridge { get; } = Build(tree, mmio, mappings, IntxLines(interrupts, mmioDevices, tree.HasPorts));

    /// <summary>The I/O APIC pins of PCI interrupts, for the DSDT.</summary>
    internal (uint First, int Count) IntxGsis { get; } = DeviceSlots.IntxGsis(mmioDevices, tree.HasPorts);

    /// <summary>
    /// What to append to the kernel's command line so that a guest without ACPI finds the virtio-mmio windows; others read the DSDT.
    /// </summary>
    internal List<string> KernelArguments { get; } = [];

    /// <summary>What the devices so far, and those that can come, ask of the kernel.</summary>
    internal MachineNeeds Needs { get; private set; } = MachineNeeds.Pluggable;

    /// <summary>The virtio-mmio windows, for the DSDT.</summary>
    internal List<AcpiVirtioMmio> MmioDevices { get; } = [];

    /// <summary>
    /// A device as a PCI function that is not on the bus yet. The function owns the device, which is closed when there can be none.
    /// </summary>
    internal VirtioPciFunction Function(string name, VirtioDevice device) =>
        Over(device, () => new VirtioPciFunction(name, device, memory, interrupts, doorbells));

    /// <summary>Plugs a device in where its description says, before the guest starts; it belongs to the machine from here on.</summary>
    /// <param name="description">Where it is.</param>
    /// <param name="device">The device.</param>
    /// <param name="placeBars">Gives its BARs addresses, as firmware does; false leaves them as a reset does.</param>
    internal void Attach(DeviceDescription description, VirtioDevice device, bool placeBars)
    {
        if (description.Pci is not { } at)
        {
            AttachMmio(description.Id, device, (uint)description.MmioSlot!.Value);
            return;
        }

        VirtioPciFunction function = Function(description.Id, device);
        _ = Over(function, () =>
        {
            if (placeBars)
            {
                Bridge.Add(function, at, _bars, _highBars);
            }
            else
            {
                Bridge.Plug(function, at);
            }

            return at;
        });
    }

    /// <summary>Plugs a function of <see cref="Function"/> in while the guest runs. Calls come one at a time. Where it is.</summary>
    /// <exception cref="InvalidOperationException">No slot is free.</exception>
    internal PciAddress Plug(VirtioPciFunction function)
    {
        bool onRootBus = function.Transport.Device.SharedMemory.Count > 0;
        PciAddress at = new PciSlotMap(tree, Bridge).TakeNext(onRootBus, comesAndGoes: true)
            ?? throw new InvalidOperationException(tree.HasPorts
                ? $"{function.Name}: all {tree.Count} PCI Express ports are taken; remove a device"
                : $"{function.Name}: all {(onRootBus ? 1 : Bridge.Buses) * PciHostBridge.Slots} PCI slots "
                    + $"{(onRootBus ? "of bus 0 " : "")}are taken; remove a device");
        Bridge.Plug(function, at);
        return at;
    }

    /// <summary>The transport of a device, with its message vectors where it has any; null when it is off the bus.</summary>
    internal (Devices.Virtio.VirtioTransport Transport, MsixTable? Vectors)? Find(AttachedDevice device)
    {
        if (device.Address is { } at)
        {
            return Bridge.Find(at) is VirtioPciFunction function && ReferenceEquals(function.Transport.Device, device.Device)
                ? (function.Transport, function.Msix)
                : null;
        }

        return _windows.Find(window => ReferenceEquals(window.Device, device.Device)) is { } window ? (window, null) : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (VirtioMmio window in _windows)
        {
            window.Dispose();
        }

        Bridge.Dispose();
    }

    /// <summary>
    /// Builds what owns <paramref name="inner"/> from then on; when that fails (no descriptors are left, say), it is closed.
    /// </summary>
    private T Over<T>(IDisposable inner, Func<T> build)
    {
        try
        {
            if (inner is VirtioDevice device)
            {
                Needs = Needs.With(device);
                device.Threads = threads?.With(device.ThreadNeeds + MachineNeeds.InterruptLines) ?? device.Threads;
            }

            return build();
        }
        catch
        {
            inner.Dispose();
            throw;
        }
    }

    private static WiredOr[] IntxLines(KvmInterrupts interrupts, int mmioDevices, bool hasPorts)
    {
        (uint first, int count) = DeviceSlots.IntxGsis(mmioDevices, hasPorts);
        WiredOr[] lines = new WiredOr[count];
        for (int i = 0; i < count; i++)
        {
            lines[i] = new WiredOr(interrupts.CreateLevelLine(first + (uint)i));
        }

        return lines;
    }

    private static PciHostBridge Build(PciTree tree, AddressBus mmio, IBarMappings mappings, WiredOr[] lines)
    {
        (uint Start, uint Length)[] windows = new (uint, uint)[tree.Count];
        for (int bus = 1; bus <= tree.Count; bus++)
        {
            windows[bus - 1] = tree.Window(bus);
        }

        if (!tree.HasPorts)
        {
            return new PciHostBridge(mmio, tree.Face, windows) { Mappings = mappings, Lines = lines };
        }

        PciHostBridge bridge = new(mmio, tree.Face) { Mappings = mappings, Lines = lines };
        for (int bus = 1; bus <= tree.Count; bus++)
        {
            bridge.AddRootPort(tree.Upstream(bus), windows[bus - 1].Start, windows[bus - 1].Length);
        }

        return bridge;
    }

    private void AttachMmio(string name, VirtioDevice device, uint slot)
    {
        GuestAddress at = MemoryMap.VirtioMmio.Start + (slot * VirtioMmio.WindowLength);
        VirtioMmio window = Over(device, () => new VirtioMmio(device, memory, interrupts.CreateLine(DeviceSlots.FirstMmioGsi + slot)));
        _windows.Add(window);
        mmio.Map(at.Value, VirtioMmio.WindowLength, window, name);
        for (int queue = 0; queue < window.QueueCount; queue++)
        {
            doorbells.Bind(at + VirtioMmio.NotifyOffset, 4, (ulong)queue, window.QueueDoorbell(queue));
        }

        MmioDevices.Add(new AcpiVirtioMmio(at, VirtioMmio.WindowLength, DeviceSlots.FirstMmioGsi + slot));
        KernelArguments.Add(
            string.Create(
                CultureInfo.InvariantCulture,
                $"virtio_mmio.device={VirtioMmio.WindowLength}@0x{at.Value:x}:{DeviceSlots.FirstMmioGsi + slot}"));
    }
}
