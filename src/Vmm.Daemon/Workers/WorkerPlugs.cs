using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Devices that come to a worker's VM and leave it: what they name is opened here and passed, and its bounds grow with it.
/// </summary>
/// <param name="link">The connection.</param>
/// <param name="events">Hears of removals.</param>
/// <param name="bounds">What keeps it in bounds.</param>
/// <param name="storage">Where disks may be.</param>
internal sealed class WorkerPlugs(WorkerLink link, WorkerEvents events, WorkerBounds bounds, StorageFolders storage)
{
    /// <inheritdoc cref="IWorker.AddDiskAsync"/>
    internal async Task<DeviceInfo> AddAsync(DiskSpec disk, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(disk, storage);
        if (bounds.AddMemory(MemoryDisks.BytesOf(disk)) is { } problem)
        {
            throw new WorkerException(
                ControlCodes.DiskInMemory,
                $"disk {disk.Path} lies in memory, and the worker's memory limit cannot be raised for it: {problem}");
        }

        return await AddAsync(new PlugBody(VmSpecJson.Write(disk), null), resources, cancellation).ConfigureAwait(false);
    }

    /// <inheritdoc cref="IWorker.AddNetAsync"/>
    internal async Task<DeviceInfo> AddAsync(NetSpec net, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(net);
        PlugBody body = new(null, VmSpecJson.Write(WorkerResources.WithMtu(net)));
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
