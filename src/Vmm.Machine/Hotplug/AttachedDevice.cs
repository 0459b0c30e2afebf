using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Machine.Description;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>A virtio device of a machine, with what it was made from. A disk or network device can come and go.</summary>
internal sealed class AttachedDevice
{
    private readonly TaskCompletionSource<bool> _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile DiskSpec? _disk;
    private volatile bool _isCopied;

    /// <param name="description">What it is and where.</param>
    /// <param name="device">The device.</param>
    /// <param name="disk">Its part of the spec, for a disk.</param>
    /// <param name="net">Its part of the spec, for a network device.</param>
    internal AttachedDevice(DeviceDescription description, VirtioDevice device, DiskSpec? disk = null, NetSpec? net = null) =>
        (Description, Device, DiskSpec, NetSpec) = (description, device, disk, net);

    internal DeviceDescription Description { get; }

    internal VirtioDevice Device { get; }

    /// <summary>Its part of the spec; another one when the disk moved to another file.</summary>
    internal DiskSpec? DiskSpec { get => _disk; set => _disk = value; }

    internal NetSpec? NetSpec { get; }

    internal string Id => Description.Id;

    internal PciAddress? Address => Description.Pci;

    /// <summary>It can come and go.</summary>
    internal bool IsPluggable => DiskSpec is not null || NetSpec is not null;

    /// <summary>The guest was asked for it. Under the lock of the devices.</summary>
    internal bool Removing { get; set; }

    /// <summary>The disk is being copied: nobody asks the guest to let go of it.</summary>
    internal bool IsCopied { get => _isCopied; set => _isCopied = value; }

    /// <summary>It is off the bus; closing it is under way. Under the lock of the devices.</summary>
    internal bool Retired { get; set; }

    /// <summary>Somebody waits for its removal. Under the lock of the devices.</summary>
    internal bool Awaited { get; set; }

    /// <summary>Ends when the device is disposed: true; false when the VM ended first.</summary>
    internal Task<bool> Gone => _gone.Task;

    internal PluggedDevice Info => new(Id, Address, DiskSpec, NetSpec, Removing, (Device as VirtioBlk)?.WaitsFor ?? DiskStatus.Ok);

    internal void End(bool removed) => _gone.TrySetResult(removed);
}
