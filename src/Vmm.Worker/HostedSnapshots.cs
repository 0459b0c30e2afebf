using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>Differencing disks that become the tops of this worker's disks. In turn.</summary>
/// <param name="machine">The machine.</param>
/// <param name="state">Where it stands.</param>
internal sealed class HostedSnapshots(VirtualMachine machine, Func<VmState> state)
{
    private readonly HashSet<string> _taken = new(StringComparer.Ordinal); // files of overlays that became the tops

    /// <summary>Puts them on, all at one instant.</summary>
    /// <exception cref="RequestException">They are not: the disks are as they were.</exception>
    internal void Take(SnapshotBody body, DescriptorResources passed)
    {
        if (state() is var now and not (VmState.Running or VmState.Paused))
        {
            throw new RequestException(ControlCodes.WrongState, $"the disks of a VM that is {now} get no differencing disks");
        }

        _taken.ExceptWith(body.Disks.Select(disk => disk.Path));
        List<DiskOverlay> overlays = [];
        try
        {
            for (int i = 0; i < body.Disks.Count; i++)
            {
                overlays.Add(new DiskOverlay(body.Disks[i].Device, passed.OpenOverlay(i, body.Disks[i].Path)));
            }
        }
        catch (Exception cause) when (cause is BlockException or ArgumentException or KernelException)
        {
            overlays.ForEach(overlay => overlay.File.Dispose());
            throw Failed(cause);
        }

        try
        {
            machine.SnapshotDisks(overlays, passed.Note, body.Cut ?? false);
        }
        catch (Exception cause) when (cause is BlockException or TimeoutException or ObjectDisposedException or OutOfMemoryException)
        {
            throw Failed(cause);
        }
        catch (HotplugException cause)
        {
            throw HostedDevices.Refused(cause);
        }

        _taken.UnionWith(body.Disks.Select(disk => disk.Path));
    }

    /// <summary>Begins or ends to log what is written to a disk. A VM that was not started yet has nothing in flight.</summary>
    /// <exception cref="RequestException">The disk goes on as it was.</exception>
    internal void Log(LogBody body, DescriptorResources passed, bool begins)
    {
        try
        {
            machine.Log(body.Device, begins ? passed.Take("log") : null);
        }
        catch (Exception cause) when (cause is BlockException or TimeoutException or ObjectDisposedException)
        {
            throw new RequestException(ControlCodes.ResourceRefused, $"{body.Device}: {cause.Message}", cause);
        }
        catch (ArgumentException cause)
        {
            throw new RequestException(ControlCodes.BadFrame, cause.Message, cause);
        }
        catch (HotplugException cause)
        {
            throw HostedDevices.Refused(cause);
        }
    }

    /// <summary>Whether they became the tops: all did, or none.</summary>
    internal SnapshotInfo Look(SnapshotBody body) => new(body.Disks.Any(disk => _taken.Contains(disk.Path)));

    private static RequestException Failed(Exception cause) => new(ControlCodes.DiskSnapshotFailed, cause.Message, cause);
}
