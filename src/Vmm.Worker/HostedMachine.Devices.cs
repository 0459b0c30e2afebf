using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Worker;

/// <content>Disks and network devices that come and go while the guest runs.</content>
internal sealed partial class HostedMachine
{
    private Action<RemovalBody>? _deviceRemoved;

    internal DeviceList Devices => new([.. _machine.Devices.Select(Describe)]);

    /// <summary>Plugs a device in.</summary>
    /// <param name="body">What.</param>
    /// <param name="passed">Its descriptors.</param>
    /// <exception cref="RequestException">It cannot be plugged.</exception>
    internal DeviceInfo Add(PlugBody body, DescriptorResources passed)
    {
        RequireGuest("gets no device");
        try
        {
            if (body is { Disk: { } disk, Net: null })
            {
                DiskSpec spec = VmSpecJson.TryReadDisk(disk, out string problem) ?? throw new RequestException("spec-invalid", problem);
                return Describe(_machine.AddDisk(spec, passed.OpenDisk(0, spec)));
            }

            if (body is { Net: { } net, Disk: null })
            {
                NetSpec spec = VmSpecJson.TryReadNet(net, out string problem) ?? throw new RequestException("spec-invalid", problem);
                return Describe(_machine.AddNet(spec, passed.OpenNet(0, spec)));
            }
        }
        catch (Exception cause) when (cause is not RequestException)
        {
            throw cause switch
            {
                BlockException => new RequestException("disk-open-failed", cause.Message, cause),
                TapException => new RequestException("net-open-failed", cause.Message, cause),
                HotplugException hotplug => Refused(hotplug),
                KernelException => new RequestException("resource-refused", cause.Message, cause),
                ArgumentException => new RequestException("bad-frame", cause.Message, cause),
                _ => cause,
            };
        }

        throw new RequestException("bad-frame", "expected one device");
    }

    /// <summary>Takes a device out; ends when it is gone or its time is over.</summary>
    /// <exception cref="RequestException">It cannot be removed, whatever the guest does.</exception>
    internal async Task<RemovalBody> RemoveAsync(UnplugBody body)
    {
        RequireGuest("lets go of no device");
        try
        {
            RemovalOutcome outcome = await _machine.RemoveAsync(body.Device, TimeSpan.FromMilliseconds(Math.Max(0, body.TimeoutMilliseconds)), body.Force, CancellationToken.None).ConfigureAwait(false);
            return new RemovalBody(body.Device, Convert(outcome));
        }
        catch (HotplugException cause)
        {
            throw Refused(cause);
        }
    }

    private void RequireGuest(string what)
    {
        if (State is not (WorkerState.Running or WorkerState.Paused))
        {
            throw new RequestException("wrong-state", $"the VM {what} now: it is {State}");
        }
    }

    /// <summary>Calls <paramref name="handler"/> for every device that is gone, from any thread.</summary>
    internal void OnDeviceRemoved(Action<RemovalBody> handler) => _deviceRemoved = handler;

    private void Tell(object? sender, DeviceRemovedEventArgs removed) => _deviceRemoved?.Invoke(new RemovalBody(removed.Device.Name, Convert(removed.Outcome)));

    private static DeviceInfo Describe(PluggedDevice device) => device switch
    {
        { Disk: { } disk } => new DeviceInfo(device.Name, "disk", disk.Path, device.Address?.Slot, disk.ReadOnly, device.Removing, Stored: false, disk.Vnode, device.Address?.Bus ?? 0),
        _ => new DeviceInfo(device.Name, "net", device.Net?.Tap ?? "", device.Address?.Slot, ReadOnly: false, device.Removing, Stored: false, device.Net?.Vnode, device.Address?.Bus ?? 0),
    };

    private static DeviceRemoval Convert(RemovalOutcome outcome) => outcome switch
    {
        RemovalOutcome.Removed => DeviceRemoval.Removed,
        RemovalOutcome.Forced => DeviceRemoval.Forced,
        _ => DeviceRemoval.Refused,
    };

    private static RequestException Refused(HotplugException cause) => new(
        cause.Problem switch
        {
            HotplugProblem.NoSuchDevice => "no-such-device",
            HotplugProblem.NotHotpluggable => "not-hotpluggable",
            HotplugProblem.NoSlot => "no-slot",
            HotplugProblem.Busy => "device-busy",
            _ => "wrong-state",
        },
        cause.Message,
        cause);
}
