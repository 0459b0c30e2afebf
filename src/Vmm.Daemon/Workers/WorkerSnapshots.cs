using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Spec.Devices;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Differencing disks for a worker's disks: each is opened and locked here and passed alone, since the worker has the images below it.
/// </summary>
/// <param name="link">The connection.</param>
/// <param name="bounds">What keeps it in bounds.</param>
/// <param name="access">How disks are opened.</param>
internal sealed class WorkerSnapshots(WorkerLink link, WorkerBounds bounds, DiskAccess access)
{
    private static readonly TimeSpan s_time = TimeSpan.FromSeconds(60); // what is in flight ends first, and the disks are flushed

    /// <inheritdoc cref="IWorker.SnapshotDisksAsync"/>
    internal async Task TakeAsync(
        IReadOnlyList<(string Device, DiskSpec Overlay)> disks, bool cut, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskSnapshots))
        {
            throw TooOld();
        }

        if (cut && link.Client.Peer?.Can(ControlVersion.ChangeLogs) != true)
        {
            throw NoLogs();
        }

        List<DiskFiles> files = [];
        try
        {
            List<string> names = [];
            List<FileDescriptorHandle> handles = [];
            for (int i = 0; i < disks.Count; i++)
            {
                DiskFiles file = DiskFiles.OpenTop(disks[i].Overlay, access);
                files.Add(file);
                foreach ((string name, FileDescriptorHandle descriptor) in file.Descriptors(i))
                {
                    names.Add(name);
                    handles.Add(descriptor);
                }

                DiskSpec overlay = disks[i].Overlay;
                if ((bounds.AddMemory(MemoryDisks.BytesOf(overlay)) ?? bounds.LimitFiles(file.MostBytes, raise: true)) is { } problem)
                {
                    throw new WorkerException(
                        ControlCodes.DiskSnapshotFailed, $"the worker's limits cannot be raised for {overlay.Path}: {problem}");
                }
            }

            SnapshotBody body = new([.. disks.Select(disk => new SnapshotDisk(disk.Device, disk.Overlay.Path))], cut ? true : null);
            ControlClient.Answer answer = await link.Client.CallAsync(
                ControlKinds.SnapshotDisks, ControlCodec.Body(body, ControlJson.Default.SnapshotBody), names, [.. handles], cancellation,
                s_time).ConfigureAwait(false);
            answer.Descriptor?.Dispose();
        }
        catch (WorkerException cause) when (cause.Code is ControlCodes.UnknownKind)
        {
            throw TooOld();
        }
        finally
        {
            files.ForEach(file => file.Dispose());
        }
    }

    /// <inheritdoc cref="IWorker.HasSnapshotAsync"/>
    internal async Task<bool> HasAsync(IReadOnlyList<SnapshotDisk> disks, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskSnapshots))
        {
            return false; // it was never asked for any
        }

        try
        {
            ControlClient.Answer answer = await link.Client.CallAsync(
                ControlKinds.SnapshotStatus, ControlCodec.Body(new SnapshotBody(disks), ControlJson.Default.SnapshotBody), null, [],
                cancellation, s_time).ConfigureAwait(false);
            return WorkerLink.Body(answer, ControlJson.Default.SnapshotInfo).Taken;
        }
        catch (WorkerException cause) when (cause.Code is ControlCodes.UnknownKind)
        {
            return false;
        }
    }

    /// <inheritdoc cref="IWorker.LogChangesAsync"/>
    internal async Task LogAsync(string device, FileDescriptorHandle log, CancellationToken cancellation)
    {
        if (link.Client.Peer?.Can(ControlVersion.ChangeLogs) != true)
        {
            throw NoLogs();
        }

        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.LogDisk, ControlCodec.Body(new LogBody(device), ControlJson.Default.LogBody), ["log"], [log], cancellation, s_time)
            .ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <inheritdoc cref="IWorker.StopLogAsync"/>
    internal async Task StopLogAsync(string device, CancellationToken cancellation)
    {
        if (link.Client.Peer?.Can(ControlVersion.ChangeLogs) == true)
        {
            ControlClient.Answer answer = await link.Client.CallAsync(
                ControlKinds.UnlogDisk, ControlCodec.Body(new LogBody(device), ControlJson.Default.LogBody), null, [], cancellation, s_time)
                .ConfigureAwait(false);
            answer.Descriptor?.Dispose();
        }
    }

    private static WorkerException NoLogs() => new(
        ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot log changes: stop the VM and start it again");

    private static WorkerException TooOld() => new(
        ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot take snapshots: stop the VM and start it again");
}
