using Vmm.Devices.Pci;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>A disk or network device that the VM has now.</summary>
/// <param name="Name"><c>disk0</c>, <c>net1</c>, …: stays the same while it is plugged, and is not given to another device of the same
/// run.</param>
/// <param name="Address">Where it is on PCI; null: a virtio-mmio device, which stays for good.</param>
/// <param name="Disk">Null for a network device.</param>
/// <param name="Net">Null for a disk.</param>
/// <param name="Removing">The guest was asked to let go of it and has not, or it is being closed.</param>
/// <param name="Waits">The fault of the host that a disk waits for; <see cref="DiskStatus.Ok"/> when it does not.</param>
public sealed record PluggedDevice(
    string Name, PciAddress? Address, DiskSpec? Disk, NetSpec? Net, bool Removing, DiskStatus Waits = DiskStatus.Ok);

/// <summary>How a removal came out.</summary>
public enum RemovalOutcome
{
    /// <summary>The guest let go of it, and it is gone: its file or tap is closed.</summary>
    Removed,

    /// <summary>Taken away without the guest's consent; it is gone.</summary>
    Forced,

    /// <summary>The guest has not let go of it. The device works on; if the guest ejects it later, it is gone then.</summary>
    Refused,
}

/// <summary>Why a device is gone, for <see cref="Run.VirtualMachine.DeviceRemoved"/>.</summary>
public sealed class DeviceRemovedEventArgs(PluggedDevice device, RemovalOutcome outcome) : EventArgs
{
    /// <summary>As it was.</summary>
    public PluggedDevice Device { get; } = device;

    /// <summary>
    /// <see cref="RemovalOutcome.Removed"/> when the guest ejected it, asked or not, or <see cref="RemovalOutcome.Forced"/>.
    /// </summary>
    public RemovalOutcome Outcome { get; } = outcome;
}

/// <summary>What a hotplug request cannot do.</summary>
public enum HotplugProblem
{
    /// <summary>There is no device of that name.</summary>
    NoSuchDevice,

    /// <summary>The device, or a device like this, can neither come nor go while the guest runs.</summary>
    NotHotpluggable,

    /// <summary>No slot is free.</summary>
    NoSlot,

    /// <summary>Somebody else is removing it.</summary>
    Busy,

    /// <summary>The VM is over.</summary>
    Ended,
}

/// <summary>A device cannot be added or removed, whatever the guest does.</summary>
public sealed class HotplugException(HotplugProblem problem, string message) : Exception(message)
{
    /// <summary>Why.</summary>
    public HotplugProblem Problem { get; } = problem;
}
