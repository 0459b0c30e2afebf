using Vmm.Contracts.Control;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>
/// What goes on with a disk of this worker's VM, a copy, a stream or a commit: one at a time. It changes in turn; how far it is can be
/// asked from any thread.
/// </summary>
/// <param name="machine">The machine.</param>
/// <param name="state">Where it stands.</param>
internal sealed class HostedDiskCopy(VirtualMachine machine, Func<VmState> state)
{
    private volatile IDiskJob? _copy;

    /// <summary>How far it is.</summary>
    internal DiskCopyInfo Info
    {
        get
        {
            if (_copy is not { } copy)
            {
                return new DiskCopyInfo(DiskCopyState.None);
            }

            MirrorReport report = copy.Report;
            return new DiskCopyInfo(
                report.State switch
                {
                    MirrorState.Mirrored => DiskCopyState.Mirrored,
                    MirrorState.Sealed => DiskCopyState.Sealed,
                    _ => DiskCopyState.Copying,
                },
                copy.Device,
                report.CopiedBytes,
                copy.TotalBytes,
                copy.IsGone ? "the disk was taken out of the VM" : report.Problem,
                report.Status == DiskStatus.NoSpace);
        }
    }

    /// <summary>Begins to copy; answered when everything that is written goes through the mirror.</summary>
    /// <exception cref="RequestException">It cannot be copied.</exception>
    internal void Begin(CopyDiskBody body, DescriptorResources passed)
    {
        RequireFree();
        DiskSpec spec = VmSpecJson.TryReadDisk(body.Disk, out string problem)
            ?? throw new RequestException(ControlCodes.SpecInvalid, problem);
        Guard(() => _copy = machine.CopyDisk(
            body.Device, spec, passed.OpenDisk(0, spec), new CopyRequest(body.BytesPerSecond ?? 0, body.TopOnly)));
    }

    /// <summary>Begins to stream; answered when the thread is at work.</summary>
    /// <exception cref="RequestException">It cannot be streamed.</exception>
    internal void Begin(StreamDiskBody body)
    {
        RequireFree();
        Guard(() => _copy = machine.StreamDisk(body.Device, body.Base, body.BytesPerSecond ?? 0));
    }

    /// <summary>Begins to commit; answered when everything that is written goes through the mirror.</summary>
    /// <exception cref="RequestException">It cannot be committed.</exception>
    internal void Begin(CommitDiskBody body, DescriptorResources passed)
    {
        RequireFree();
        Guard(() => _copy = machine.CommitDisk(body.Device, passed.OpenBase(body.Base), body.BytesPerSecond ?? 0));
    }

    /// <summary>Takes a step.</summary>
    /// <exception cref="RequestException">It is not possible now, or failed.</exception>
    internal void Take(CopyStepBody step)
    {
        if (_copy is not { } copy || !string.Equals(copy.Device, step.Device, StringComparison.Ordinal))
        {
            if (step.Step == DiskCopyStep.Cancel)
            {
                return; // there is nothing to cancel
            }

            throw new RequestException(ControlCodes.WrongState, $"{step.Device} has no job");
        }

        Guard(() =>
        {
            switch (step.Step)
            {
                case DiskCopyStep.Seal:
                    copy.Seal();
                    break;
                case DiskCopyStep.Finish:
                    copy.Finish();
                    _copy = null;
                    break;
                default:
                    copy.Cancel();
                    _copy = null;
                    break;
            }
        });
    }

    /// <summary>For what must not meet a copy.</summary>
    /// <exception cref="RequestException">A disk is being copied.</exception>
    internal void ThrowIfCopying()
    {
        if (_copy is { IsGone: false } copy)
        {
            throw new RequestException(ControlCodes.WrongState, $"{copy.Device} has a job: wait for that, or cancel it");
        }
    }

    private void RequireFree()
    {
        if (_copy is { IsGone: false } other)
        {
            throw new RequestException(ControlCodes.WrongState, $"{other.Device} has a job already: one disk at a time");
        }

        if (state() is var now and not (VmState.Running or VmState.Paused))
        {
            throw new RequestException(ControlCodes.WrongState, $"the disk of a VM that is {now} has no jobs");
        }
    }

    private static void Guard(Action act)
    {
        try
        {
            act();
        }
        catch (Exception cause) when (cause is not RequestException)
        {
            throw cause switch
            {
                BlockException or TimeoutException => new RequestException(ControlCodes.DiskCopyFailed, cause.Message, cause),
                InvalidOperationException => new RequestException(ControlCodes.WrongState, cause.Message, cause),
                HotplugException hotplug => HostedDevices.Refused(hotplug),
                _ => cause,
            };
        }
    }
}
