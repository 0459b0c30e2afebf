using System.Globalization;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>Where virtio devices of one machine are plugged in: PCI slots behind the host bridge, and virtio-mmio windows.</summary>
internal sealed class VirtioSlots(GuestMemory memory, KvmInterrupts interrupts, KvmDoorbells doorbells, AddressBus mmio, IIoThreads? threads) : IDisposable
{
    private const uint FirstMmioGsi = 5, LastMmioGsi = VirtualMachine.HotplugGsi - 1;

    private readonly BarAllocator _bars = new((uint)MemoryMap.PciWindow32.Start.Value, (uint)MemoryMap.PciWindow32.Length);
    private readonly List<VirtioMmio> _windows = [];

    /// <summary>The bridge that PCI devices sit behind.</summary>
    internal PciHostBridge Bridge { get; } = new(mmio);

    /// <summary>What to append to the kernel's command line so that the guest finds the virtio-mmio windows.</summary>
    internal List<string> KernelArguments { get; } = [];

    /// <summary>A device as a PCI function that is not on the bus yet. The function owns the device, which is closed when there can be none.</summary>
    internal VirtioPciFunction Function(string name, VirtioDevice device) =>
        Over(device, () => new VirtioPciFunction(name, device, memory, interrupts, doorbells));

    /// <summary>Plugs a device in before the guest starts; it belongs to the machine from here on. Its slot, when it is a PCI device.</summary>
    internal int? Attach(string name, VirtioDevice device, Spec.VirtioTransport transport)
    {
        if (transport == Spec.VirtioTransport.Pci)
        {
            VirtioPciFunction function = Function(name, device);
            return Over(function, () => Bridge.Add(function, _bars));
        }

        AttachMmio(name, device);
        return null;
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

    /// <summary>Builds what owns <paramref name="inner"/> from then on; when that fails (no descriptors are left, say), it is closed.</summary>
    private T Over<T>(IDisposable inner, Func<T> build)
    {
        try
        {
            if (inner is VirtioDevice device)
            {
                device.Threads = threads ?? device.Threads;
            }

            return build();
        }
        catch
        {
            inner.Dispose();
            throw;
        }
    }

    private void AttachMmio(string name, VirtioDevice device)
    {
        uint slot = (uint)_windows.Count;
        if (FirstMmioGsi + slot > LastMmioGsi)
        {
            device.Dispose();
            throw new HostMismatchException($"{name}: at most {slot} virtio-mmio devices have an interrupt pin: make some of them pci");
        }

        GuestAddress at = MemoryMap.VirtioMmio.Start + (slot * VirtioMmio.WindowLength);
        VirtioMmio window = Over(device, () => new VirtioMmio(device, memory, interrupts.CreateLine(FirstMmioGsi + slot)));
        _windows.Add(window);
        mmio.Map(at.Value, VirtioMmio.WindowLength, window, name);
        for (int queue = 0; queue < window.QueueCount; queue++)
        {
            doorbells.Bind(at + VirtioMmio.NotifyOffset, 4, (ulong)queue, window.QueueDoorbell(queue));
        }

        KernelArguments.Add(string.Create(CultureInfo.InvariantCulture, $"virtio_mmio.device={VirtioMmio.WindowLength}@0x{at.Value:x}:{FirstMmioGsi + slot}"));
    }
}
