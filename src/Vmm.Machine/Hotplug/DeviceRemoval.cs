using Vmm.Devices.Pci;
using Vmm.LifeCycle;
using Vmm.Machine.Build;
using Vmm.Machine.Run;

namespace Vmm.Machine.Hotplug;

/// <summary>Taking disks and network devices out while the guest runs: it is asked, it ejects, or they are taken.</summary>
internal sealed class DeviceRemoval(Board board, DeviceTable table, DeviceSet set)
{
    /// <summary>
    /// A device is gone, its file or tap closed: the guest ejected it, or it was taken. Raised on a thread of its own, also for a removal
    /// that was refused before.
    /// </summary>
    internal event EventHandler<DeviceRemovedEventArgs>? Removed;

    /// <summary>
    /// Asks the guest to let go of a disk or network device and waits until it did. A guest that does not is asked once; what it does later
    /// still counts (<see cref="Removed"/>). Any thread.
    /// </summary>
    /// <param name="id">Name of the device.</param>
    /// <param name="patience">How long the guest has.</param>
    /// <param name="force">After that it is taken: requests in flight end, then its file or tap is closed.</param>
    /// <param name="cancellation">Ends the wait, not the wish.</param>
    /// <exception cref="HotplugException">It cannot be removed.</exception>
    internal async Task<RemovalOutcome> RemoveAsync(string id, TimeSpan patience, bool force, CancellationToken cancellation)
    {
        AttachedDevice device = StartRemoval(id);
        try
        {
            try
            {
                return await device.Gone.WaitAsync(patience, cancellation).ConfigureAwait(false)
                    ? RemovalOutcome.Removed
                    : throw set.Ended();
            }
            catch (TimeoutException) when (!force)
            {
                return RemovalOutcome.Refused;
            }
            catch (TimeoutException)
            {
                return await TakeAsync(device).ConfigureAwait(false);
            }
        }
        finally
        {
            lock (table.Gate)
            {
                device.Awaited = false;
            }
        }
    }

    /// <summary>
    /// Off the bus, before the guest's next instruction when the guest ejects on a vCPU thread. Closing what is behind it is for a thread
    /// that may do that: a vCPU's has to go on, and may be confined.
    /// </summary>
    internal void Retire(PciAddress at, RemovalOutcome outcome)
    {
        lock (table.Gate)
        {
            if (table.IsOver || Array.Find(table.All, d => d.IsPluggable && d.Address == at && !d.Retired) is not { } device)
            {
                return;
            }

            device.Retired = true;
            device.Removing = true;
            PciFunction? function = set.Slots.Bridge.Unplug(at, surprise: outcome == RemovalOutcome.Forced);
            if (board.Helpers.TryStart(device.Id + "-eject", () => Finish(device, function, outcome)) is { } cause)
            {
                Fail(device, cause);
            }
        }
    }

    private async Task<RemovalOutcome> TakeAsync(AttachedDevice device)
    {
        PciAddress at = device.Address!.Value;
        bool taken = set.Hotplug.Take(at); // or the guest was quicker
        if (taken)
        {
            Retire(at, RemovalOutcome.Forced);
            lock (table.Gate)
            {
                if (!table.IsOver) // else its interrupt controller may be gone
                {
                    set.Hotplug.Changed(at);
                }
            }
        }

        return !await device.Gone.ConfigureAwait(false) ? throw set.Ended() : taken ? RemovalOutcome.Forced : RemovalOutcome.Removed;
    }

    private AttachedDevice StartRemoval(string id)
    {
        lock (table.Gate)
        {
            if (table.IsOver)
            {
                throw set.Ended();
            }

            AttachedDevice device = table.FindPluggable(id)
                ?? throw new HotplugException(HotplugProblem.NoSuchDevice, $"{board.Spec.Name} has no disk or network device {id}");
            if (device.Address is not { } at)
            {
                throw new HotplugException(
                    HotplugProblem.NotHotpluggable, $"{id} is a virtio-mmio device: only PCI devices can be removed while the guest runs");
            }

            if (device.IsCopied)
            {
                throw new HotplugException(HotplugProblem.Busy, $"{id} is being copied: wait for that, or cancel it");
            }

            if (device.Awaited)
            {
                throw new HotplugException(HotplugProblem.Busy, $"{id} is being removed already");
            }

            device.Awaited = true;
            device.Removing = true;
            // The guest may have ejected it just now: then it is on its way out all the same.
            _ = set.Hotplug.AskRemoval(at);
            return device;
        }
    }

    private void Finish(AttachedDevice device, PciFunction? function, RemovalOutcome outcome)
    {
        try
        {
            function?.Dispose();
            lock (table.Gate)
            {
                table.Remove(device);
            }

            device.End(removed: true);
            Removed?.Invoke(this, new DeviceRemovedEventArgs(device.Info, outcome));
        }
#pragma warning disable CA1031 // A fault of ours in the end of a device must end this VM with its reason, not the process without one.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Fail(device, cause);
        }
    }

    private void Fail(AttachedDevice device, Exception cause) =>
        board.End.Decide(new RunResult(ExitReason.Failed, Message: $"{device.Id} could not be removed: {cause.Message}"));
}
