using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Machine.Description;
using Vmm.Spec;

namespace Vmm.Machine.Hotplug;

/// <summary>A virtio device of a machine, with what it was made from. A disk or network device can come and go.</summary>
internal sealed class AttachedDevice
{
    private readonly TaskCompletionSource<bool> _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <param name="description">What it is and where.</param>
    /// <param name="device">The device.</param>
    /// <param name="disk">Its part of the spec, for a disk.</param>
    /// <param name="net">Its part of the spec, for a network device.</param>
    internal AttachedDevice(DeviceDescription description, VirtioDevice device, DiskSpec? disk = null, NetSpec? net = null) =>
        (Description, Device, DiskSpec, NetSpec) = (description, device, disk, net);

    internal DeviceDescription Description { get; }

    internal VirtioDevice Device { get; }

    internal DiskSpec? DiskSpec { get; }

    internal NetSpec? NetSpec { get; }

    internal string Id => Description.Id;

    internal PciAddress? Address => Description.Pci;

    /// <summary>It can come and go.</summary>
    internal bool IsPluggable => DiskSpec is not null || NetSpec is not null;

    /// <summary>The guest was asked for it. Under the lock of the devices.</summary>
    internal bool Removing { get; set; }

    /// <summary>It is off the bus; closing it is under way. Under the lock of the devices.</summary>
    internal bool Retired { get; set; }

    /// <summary>Somebody waits for its removal. Under the lock of the devices.</summary>
    internal bool Awaited { get; set; }

    /// <summary>Ends when the device is disposed: true; false when the VM ended first.</summary>
    internal Task<bool> Gone => _gone.Task;

    internal PluggedDevice Info => new(Id, Address, DiskSpec, NetSpec, Removing);

    internal void End(bool removed) => _gone.TrySetResult(removed);
}
