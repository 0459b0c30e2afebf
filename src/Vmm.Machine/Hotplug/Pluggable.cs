using Vmm.Devices.Pci;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Spec;

namespace Vmm.Machine.Hotplug;

/// <summary>A disk or network device of a machine, with what it was made from. Exactly one of disk and net is there.</summary>
internal sealed class Pluggable
{
    private readonly TaskCompletionSource<bool> _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal Pluggable(string name, PciAddress? address, DiskSpec spec, VirtioBlk disk) => (Name, Address, DiskSpec, Disk) = (name, address, spec, disk);

    internal Pluggable(string name, PciAddress? address, NetSpec spec, VirtioNet net) => (Name, Address, NetSpec, Net) = (name, address, spec, net);

    internal string Name { get; }

    internal PciAddress? Address { get; }

    internal DiskSpec? DiskSpec { get; }

    internal VirtioBlk? Disk { get; }

    internal NetSpec? NetSpec { get; }

    internal VirtioNet? Net { get; }

    /// <summary>The guest was asked for it. Under the lock of the devices.</summary>
    internal bool Removing { get; set; }

    /// <summary>It is off the bus; closing it is under way. Under the lock of the devices.</summary>
    internal bool Retired { get; set; }

    /// <summary>Somebody waits for its removal. Under the lock of the devices.</summary>
    internal bool Awaited { get; set; }

    /// <summary>Ends when the device is disposed: true; false when the VM ended first.</summary>
    internal Task<bool> Gone => _gone.Task;

    internal PluggedDevice Info => new(Name, Address, DiskSpec, NetSpec, Removing);

    internal void End(bool removed) => _gone.TrySetResult(removed);
}
