using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Interop;
using Vmm.Daemon.Storage;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>Copies of a worker's disks: the target is opened and locked here and passed, and the worker's bounds grow with it.</summary>
/// <param name="link">The connection.</param>
/// <param name="bounds">What keeps it in bounds.</param>
/// <param name="plugs">Knows what disks it understands.</param>
/// <param name="access">How disks are opened.</param>
internal sealed class WorkerCopies(WorkerLink link, WorkerBounds bounds, WorkerPlugs plugs, DiskAccess access)
{
    private static readonly TimeSpan s_stepTime = TimeSpan.FromSeconds(60); // what is in flight ends first, and the old disk is flushed

    /// <inheritdoc cref="IWorker.CopyDiskAsync"/>
    internal async Task BeginAsync(string device, DiskSpec disk, DiskCopyWish wish, Action opened, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskCopies))
        {
            throw TooOld();
        }

        using WorkerResources resources = WorkerResources.Open(disk, access);
        await plugs.RequireKnownAsync(resources, cancellation).ConfigureAwait(false);
        if (wish.TopOnly && link.Client.Peer?.Can(ControlVersion.ImageCopies) != true)
        {
            throw TooOld();
        }

        string? problem = bounds.AddMemory(MemoryDisks.BytesOf(disk)) ?? bounds.LimitFiles(resources.LargestFile, raise: true);
        if (problem is not null)
        {
            throw new WorkerException(ControlCodes.DiskCopyFailed, $"the worker's limits cannot be raised for the copy: {problem}");
        }

        opened();
        CopyDiskBody body = new(device, VmSpecJson.Write(resources.WithBacking(0, disk)), wish.BytesPerSecond, wish.TopOnly);
        try
        {
            ControlClient.Answer answer = await link.Client.CallAsync(
                ControlKinds.CopyDisk,
                ControlCodec.Body(body, ControlJson.Default.CopyDiskBody),
                resources.Names,
                [.. resources.Handles],
                cancellation,
                s_stepTime).ConfigureAwait(false);
            answer.Descriptor?.Dispose();
        }
        catch (WorkerException cause) when (cause.Code is ControlCodes.UnknownKind)
        {
            throw TooOld();
        }
    }

    /// <inheritdoc cref="IWorker.StreamDiskAsync"/>
    internal async Task StreamAsync(string device, DiskStreamWish wish, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskStreams))
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot stream disks: stop the VM and start it again");
        }

        StreamDiskBody body = new(device, wish.Base, wish.BytesPerSecond);
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.StreamDisk, ControlCodec.Body(body, ControlJson.Default.StreamDiskBody), null, [], cancellation, s_stepTime)
            .ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <inheritdoc cref="IWorker.CommitDiskAsync"/>
    internal async Task CommitAsync(
        int process, string device, DiskSpec disk, ulong? bytesPerSecond, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskCommits)) // null: one of this release, started by this daemon
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot commit disks: stop the VM and start it again");
        }

        using DiskFiles file = DiskFiles.OpenBase(disk, access, process);
        string? problem = bounds.AddMemory(MemoryDisks.BytesOf(disk))
            ?? (bounds.FileLimit is { } limit ? bounds.LimitFiles(limit + file.LengthNow, raise: true) : null);
        if (problem is not null)
        {
            throw new WorkerException(ControlCodes.DiskCopyFailed, $"the worker's limits cannot be raised for the commit: {problem}");
        }

        List<string> names = [];
        List<FileDescriptorHandle> handles = [];
        foreach ((string name, FileDescriptorHandle descriptor) in file.Descriptors(0))
        {
            names.Add(name);
            handles.Add(descriptor);
        }

        CommitDiskBody body = new(device, disk.Path, bytesPerSecond);
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.CommitDisk, ControlCodec.Body(body, ControlJson.Default.CommitDiskBody), names, [.. handles], cancellation,
            s_stepTime).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <inheritdoc cref="IWorker.DiskCopyAsync"/>
    internal async Task<DiskCopyInfo> InfoAsync(CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskCopies))
        {
            return new DiskCopyInfo(DiskCopyState.None);
        }

        return WorkerLink.Body(
            await link.Client.CallAsync(ControlKinds.CopyStatus, null, null, [], cancellation).ConfigureAwait(false),
            ControlJson.Default.DiskCopyInfo);
    }

    /// <inheritdoc cref="IWorker.StepDiskCopyAsync"/>
    internal async Task StepAsync(string device, DiskCopyStep step, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.CopyStep,
            ControlCodec.Body(new CopyStepBody(device, step), ControlJson.Default.CopyStepBody),
            null,
            [],
            cancellation,
            s_stepTime).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    private static WorkerException TooOld() =>
        new(ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot copy disks: stop the VM and start it again");
}
