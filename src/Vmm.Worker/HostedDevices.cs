using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>Disks and network devices of the VM of this worker, as the daemon asks for them.</summary>
internal sealed class HostedDevices
{
    private readonly VirtualMachine _machine;
    private readonly Func<VmState> _state;
    private Action<RemovalBody>? _removed;

    /// <param name="machine">The machine.</param>
    /// <param name="state">Where it stands.</param>
    internal HostedDevices(VirtualMachine machine, Func<VmState> state)
    {
        (_machine, _state) = (machine, state);
        _machine.DeviceRemoved += (_, removed) => Tell(removed);
    }

    /// <summary>Disks and network devices now.</summary>
    internal DeviceList List => new([.. _machine.Devices.Select(Describe)]);

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
                DiskSpec spec = VmSpecJson.TryReadDisk(disk, out string problem)
                    ?? throw new RequestException(ControlCodes.SpecInvalid, problem);
                return Describe(_machine.AddDisk(spec, passed.OpenDisk(0, spec)));
            }

            if (body is { Net: { } net, Disk: null })
            {
                NetSpec spec = VmSpecJson.TryReadNet(net, out string problem)
                    ?? throw new RequestException(ControlCodes.SpecInvalid, problem);
                VmSpec vm = _machine.Spec;
                if (vm.Paging is not null && PagingValidation.Unpaged(spec) is { } reason)
                {
                    throw new RequestException(ControlCodes.SpecInvalid, $"vhost: does not go with memory.resident: {reason}");
                }

                bool isRestoring = _machine.MemoryRestore is { IsOver: false };
                if (isRestoring && spec.Vhost == VhostUse.On)
                {
                    throw new RequestException(ControlCodes.WrongState,
                        "vhost: the VM's memory is being restored still, past which vhost-net would go: wait for its end "
                            + "(the event memory-restored), or say vhost: auto or off");
                }

                spec = PagingValidation.Paged(isRestoring || vm.Paging is not null, spec);
                return Describe(_machine.AddNet(spec, passed.OpenNet(0, spec)));
            }
        }
        catch (Exception cause) when (cause is not RequestException)
        {
            throw cause switch
            {
                BlockException => new RequestException(ControlCodes.DiskOpenFailed, cause.Message, cause),
                TapException => new RequestException(ControlCodes.NetOpenFailed, cause.Message, cause),
                HotplugException hotplug => Refused(hotplug),
                KernelException => new RequestException(ControlCodes.ResourceRefused, cause.Message, cause),
                ArgumentException => new RequestException(ControlCodes.BadFrame, cause.Message, cause),
                _ => cause,
            };
        }

        throw new RequestException(ControlCodes.BadFrame, "expected one device");
    }

    /// <summary>Takes a device out; ends when it is gone or its time is over.</summary>
    /// <exception cref="RequestException">It cannot be removed, whatever the guest does.</exception>
    internal async Task<RemovalBody> RemoveAsync(UnplugBody body)
    {
        RequireGuest("lets go of no device");
        try
        {
            TimeSpan patience = TimeSpan.FromMilliseconds(Math.Max(0, body.TimeoutMilliseconds));
            RemovalOutcome outcome = await _machine.RemoveAsync(
                body.Device, patience, body.Force, CancellationToken.None).ConfigureAwait(false);
            return new RemovalBody(body.Device, Convert(outcome));
        }
        catch (HotplugException cause)
        {
            throw Refused(cause);
        }
    }

    /// <summary>Looks again how large a disk is, or makes an image larger; the guest hears of what it grew by.</summary>
    /// <exception cref="RequestException">There is none of this name, it cannot be looked at, has shrunk, or does not grow.</exception>
    internal DiskSize Refresh(RefreshDiskBody body)
    {
        RequireGuest("learns of no size");
        try
        {
            return new DiskSize(body.Device, _machine.RefreshDisk(body.Device, body.GrowTo));
        }
        catch (HotplugException cause)
        {
            throw Refused(cause);
        }
        catch (BlockException cause)
        {
            string code = cause.Status == DiskStatus.NoSpace ? ControlCodes.NoSpace
                : cause.Kind != BlockErrorKind.BadSize ? ControlCodes.ResourceRefused
                : body.GrowTo is null ? ControlCodes.DiskShrinks : ControlCodes.DiskNotResizable;
            throw new RequestException(code, cause.Message, cause);
        }
    }

    private void RequireGuest(string what)
    {
        if (_state() is var now && !now.IsUp())
        {
            throw new RequestException(ControlCodes.WrongState, $"the VM {what} now: it is {now}");
        }
    }

    /// <summary>Calls the handler for every device that is gone, from any thread.</summary>
    internal void OnRemoved(Action<RemovalBody> handler) => _removed = handler;

    private void Tell(DeviceRemovedEventArgs removed) => _removed?.Invoke(new RemovalBody(removed.Device.Name, Convert(removed.Outcome)));

    private static DeviceInfo Describe(PluggedDevice device) => device switch
    {
        { Disk: { } disk } =>
            new DeviceInfo(
                device.Name,
                "disk",
                disk.Path,
                device.Address?.Slot,
                disk.ReadOnly,
                device.Removing,
                Stored: false,
                disk.Vnode,
                device.Address?.Bus ?? 0,
                device.Waits switch
                {
                    DiskStatus.Ok => null,
                    DiskStatus.NoSpace => DiskFault.NoSpace,
                    _ => DiskFault.IoError,
                }),
        _ =>
            new DeviceInfo(
                device.Name,
                "net",
                device.Net?.Source ?? "",
                device.Address?.Slot,
                ReadOnly: false,
                device.Removing,
                Stored: false,
                device.Net?.Vnode,
                device.Address?.Bus ?? 0),
    };

    private static DeviceRemoval Convert(RemovalOutcome outcome) => outcome switch
    {
        RemovalOutcome.Removed => DeviceRemoval.Removed,
        RemovalOutcome.Forced => DeviceRemoval.Forced,
        _ => DeviceRemoval.Refused,
    };

    internal static RequestException Refused(HotplugException cause) => new(
        cause.Problem switch
        {
            HotplugProblem.NoSuchDevice => ControlCodes.NoSuchDevice,
            HotplugProblem.NotHotpluggable => ControlCodes.NotHotpluggable,
            HotplugProblem.NoSlot => ControlCodes.NoSlot,
            HotplugProblem.Busy => ControlCodes.DeviceBusy,
            _ => ControlCodes.WrongState,
        },
        cause.Message,
        cause);

    /// <summary>Limits a device from now on.</summary>
    /// <exception cref="RequestException">There is no such device, or a number is out of range.</exception>
    internal void SetLimits(LimitsBody body)
    {
        DeviceLimits limits = body.Limits;
        try
        {
            _machine.SetLimit(
                body.Device,
                new Vmm.Devices.Virtio.RateLimit(
                    limits.BytesPerSecond ?? 0, limits.OperationsPerSecond ?? 0, limits.BurstBytes ?? 0, limits.BurstOperations ?? 0));
        }
        catch (ArgumentException cause)
        {
            // What a programmer wants to know more is nothing for the user.
            throw new RequestException(
                ControlCodes.LimitsImpossible,
                cause.Message.Replace($" (Parameter '{cause.ParamName}')", "", StringComparison.Ordinal),
                cause);
        }
    }
}
