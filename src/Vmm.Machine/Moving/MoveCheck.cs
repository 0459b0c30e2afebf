using Vmm.Devices.Virtio.Blk;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Moving;

/// <summary>Whether a machine can be moved: what cannot is named before the first byte.</summary>
internal static class MoveCheck
{
    /// <exception cref="MoveException">It cannot.</exception>
    internal static void Require(VirtualMachine machine)
    {
        string name = machine.Spec.Name;
        if (machine.State is not (VmState.Running or VmState.Paused))
        {
            throw new MoveException($"{name} is {machine.State}: only a VM that runs or is paused can be moved");
        }

        if (machine.Pager is not null)
        {
            throw new MoveException($"{name} has a resident limit (memory.resident): what is out of its memory cannot be moved; "
                + "save and restore it instead");
        }

        if (machine.Spec.Devices.FirstOrDefault(device => device.Files.Any()) is { } mapped)
        {
            throw new MoveException(
                $"{name} has a device with a file that its guest writes without our doing ({mapped.Kind}): take it out");
        }

        try
        {
            machine.DeviceSet.ThrowIfShared();
            machine.DeviceSet.ThrowIfWaiting();
        }
        catch (StateException cause)
        {
            throw new MoveException(cause.Message, cause);
        }

        foreach (AttachedDevice device in machine.DeviceSet.All)
        {
            if (device.IsCopied || device.Removing)
            {
                throw new MoveException($"{device.Id} of {name} {(device.Removing ? "is on its way out" : "is being copied")}: "
                    + "wait for that, or cancel it");
            }
        }
    }

    /// <summary>Its disks.</summary>
    internal static IReadOnlyList<VirtioBlk> Disks(VirtualMachine machine) =>
        [.. machine.DeviceSet.All.Select(device => device.Device).OfType<VirtioBlk>()];
}
