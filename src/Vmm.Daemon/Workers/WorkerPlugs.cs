using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Devices that come to a worker's VM and leave it: what they name is opened here and passed, and its bounds grow with it.
/// </summary>
/// <param name="link">The connection.</param>
/// <param name="events">Hears of removals.</param>
/// <param name="bounds">What keeps it in bounds.</param>
/// <param name="greeting">Asks what it speaks.</param>
/// <param name="access">How disks are opened.</param>
internal sealed class WorkerPlugs(
    WorkerLink link, WorkerEvents events, WorkerBounds bounds, WorkerGreeting greeting, DiskAccess access)
{
    private const ulong MostDisk = 1ul << 62;

    /// <inheritdoc cref="IWorker.AddDiskAsync"/>
    internal async Task<DeviceInfo> AddAsync(string vmId, DiskSpec disk, Action opened, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(disk, access with { VmId = vmId });
        resources.TellRemarks(vmId);
        await RequireKnownAsync(resources, cancellation).ConfigureAwait(false);
        if (bounds.AddMemory(MemoryDisks.BytesOf(disk)) is { } problem)
        {
            throw new WorkerException(
                ControlCodes.DiskInMemory,
                $"disk {disk.Path} lies in memory, and the worker's memory limit cannot be raised for it: {problem}");
        }

        opened();
        PlugBody body = new(VmSpecJson.Write(resources.WithBacking(0, disk)), null);
        return await AddAsync(body, resources, cancellation).ConfigureAwait(false);
    }

    /// <summary>As <see cref="RequireKnown"/>, of a worker that is asked what it speaks when nobody has asked it yet.</summary>
    /// <exception cref="WorkerException">It is of an earlier release.</exception>
    internal async Task RequireKnownAsync(WorkerResources resources, CancellationToken cancellation)
    {
        if (NeedsFeatures(resources) && link.Client.Peer is null)
        {
            await greeting.HelloAsync(cancellation).ConfigureAwait(false);
        }

        RequireKnown(resources);
    }

    /// <summary>True for what not every release of the worker knows.</summary>
    internal static bool NeedsFeatures(WorkerResources resources) => resources.HasImages || resources.HasServers || resources.HasOtherNets
        || resources.Shares is not null || resources.HasPaging || resources.IsLazy
        || resources.Names.Count > ControlCodec.MaxDescriptors;

    /// <summary>Sends a worker nothing that it takes for something else: one of an earlier release takes an image for a raw disk.</summary>
    /// <exception cref="WorkerException">It is of an earlier release.</exception>
    internal void RequireKnown(WorkerResources resources)
    {
        if (resources.HasImages && link.Client.Peer?.Can(ControlVersion.Images) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows raw disks only: stop the VM and start it again to use qcow2 images");
        }

        if (resources.HasClusters && link.Client.Peer?.Can(ControlVersion.RbdDisks) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows no Ceph RBD disks: stop the VM and start it again to use them");
        }

        if (resources.HasOtherNets && link.Client.Peer?.Can(ControlVersion.UserNets) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows taps only: stop the VM and start it again to use other networks");
        }

        if (resources.Shares is not null && link.Client.Peer?.Can(ControlVersion.Shares) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows no shared folders: stop the VM and start it again to use them");
        }

        if (resources.HasPaging && link.Client.Peer?.Can(ControlVersion.Paging) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows no resident limit (memory.resident): it would take all memory");
        }

        if (resources.IsLazy && link.Client.Peer?.Can(ControlVersion.LazyRestore) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows no lazy restore: restore the VM as a whole");
        }

        if (resources.HasServers && link.Client.Peer?.Can(ControlVersion.NbdDisks) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                "the VM's worker is of an earlier release, which knows no NBD disks: stop the VM and start it again to use them");
        }
    }

    /// <inheritdoc cref="IWorker.AddNetAsync"/>
    internal async Task<DeviceInfo> AddAsync(string vmId, NetSpec net, Action opened, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(net, access with { VmId = vmId });
        resources.TellRemarks(vmId);
        await RequireKnownAsync(resources, cancellation).ConfigureAwait(false);
        opened();
        PlugBody body = new(null, VmSpecJson.Write(NetMtus.In(net)));
        return await AddAsync(body, resources, cancellation).ConfigureAwait(false);
    }

    /// <inheritdoc cref="IWorker.RemoveDeviceAsync"/>
    internal async Task<DeviceRemoval> RemoveAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation)
    {
        UnplugBody body = new(device, (int)patience.TotalMilliseconds, force);
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.RemoveDevice,
            ControlCodec.Body(body, ControlJson.Default.UnplugBody),
            null,
            [],
            cancellation,
            patience).ConfigureAwait(false);
        RemovalBody removal = WorkerLink.Body(answer, ControlJson.Default.RemovalBody);
        return string.Equals(removal.Device, device, StringComparison.Ordinal) ? removal.Outcome
            : throw new WorkerException(
                ControlCodes.BadAnswer, $"the worker answered nonsense: asked to remove {device}, it speaks of {removal.Device}");
    }

    /// <inheritdoc cref="IWorker.GrowDiskAsync"/>
    internal async Task<ulong> GrowAsync(string device, DiskGrowth growth, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskGrowth))
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld, $"{device}: the worker of this VM is of an earlier release: its disks grow when the VM is off");
        }

        if (growth.IsImage && link.Client.Peer?.Can(ControlVersion.ImageGrowth) != true)
        {
            throw new WorkerException(ControlCodes.WorkerTooOld,
                $"{device}: the worker of this VM is of an earlier release: its images grow when the VM is off ('vmmctl disk resize')");
        }

        if (bounds.LimitFiles(growth.FileBytes, raise: true) is { } problem)
        {
            throw new WorkerException(ControlCodes.NotConfined, $"the worker's limit on file sizes cannot be raised: {problem}");
        }

        if (growth.MemoryBytes > 0 && bounds.AddMemory(growth.MemoryBytes) is { } scarce)
        {
            throw new WorkerException(ControlCodes.DiskInMemory,
                $"disk {growth.Path} lies in memory, and the worker's memory limit cannot be raised for it: {scarce}");
        }

        growth.CarryOut();
        return await RefreshAsync(new RefreshDiskBody(device, growth.ByWorker), growth.Bytes, cancellation).ConfigureAwait(false);
    }

    /// <inheritdoc cref="IWorker.DiskSizeAsync"/>
    internal Task<ulong> SizeAsync(string device, CancellationToken cancellation) =>
        link.Client.Peer is { } peer && !peer.Can(ControlVersion.DiskGrowth)
            ? throw new WorkerException(
                ControlCodes.WorkerTooOld, $"{device}: the worker of this VM is of an earlier release, which does not say how large it is")
            : RefreshAsync(new RefreshDiskBody(device), MostDisk, cancellation);

    private async Task<ulong> RefreshAsync(RefreshDiskBody body, ulong most, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.RefreshDisk,
            ControlCodec.Body(body, ControlJson.Default.RefreshDiskBody),
            null,
            [],
            cancellation).ConfigureAwait(false);
        DiskSize size = WorkerLink.Body(answer, ControlJson.Default.DiskSize);
        return string.Equals(size.Device, body.Device, StringComparison.Ordinal) && size.SizeBytes <= most ? size.SizeBytes
            : throw new WorkerException(
                ControlCodes.BadAnswer, $"the worker answered nonsense: {body.Device} is no disk of {size.SizeBytes} bytes");
    }

    private async Task<DeviceInfo> AddAsync(PlugBody body, WorkerResources resources, CancellationToken cancellation)
    {
        if (bounds.LimitFiles(resources.LargestFile, raise: true) is { } problem)
        {
            throw new WorkerException(
                ControlCodes.NotConfined, $"the worker's limit on file sizes cannot be raised for this disk: {problem}");
        }

        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.AddDevice,
            ControlCodec.Body(body, ControlJson.Default.PlugBody),
            resources.Names,
            [.. resources.Handles],
            cancellation).ConfigureAwait(false);
        events.ExpectRemovals(1);
        return WorkerLink.Body(answer, ControlJson.Default.DeviceInfo);
    }
}
