using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>Disks of a VM that grow, whether it runs or not. The spec says no sizes: the file has its own.</summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="logs">Have room for what is new.</param>
/// <param name="storage">Where they may be.</param>
internal sealed class VmDiskSizes(VmSupervisor vm, VmDevices devices, VmChangeLogs logs, StorageFolders storage)
{
    /// <summary>Grows a disk, or looks again how large it is; a guest that runs hears of it.</summary>
    /// <param name="device">Its name, e.g. <c>disk0</c>.</param>
    /// <param name="bytes">The size to grow to; null: only look.</param>
    /// <param name="cancellation">Ends the waiting; what began is carried out.</param>
    /// <exception cref="ApiException">There is no such disk, it would shrink, or cannot grow.</exception>
    internal async Task<DiskSize> ResizeAsync(string device, long? bytes, CancellationToken cancellation)
    {
        if (bytes <= 0)
        {
            throw new ApiException(
                422, ControlCodes.DiskNotResizable, "the disk cannot have that size", $"sizeBytes: {bytes}, expected more");
        }

        ulong size = 0;
        await vm.Operations.RunAsync(
            VmOperation.ResizeDisk, vm.Name, async () => size = await ResizeInTurnAsync(device, (ulong?)bytes).ConfigureAwait(false),
            cancellation).ConfigureAwait(false);
        if (bytes is not null)
        {
            vm.Events.Publish("disk-resized", vm.Name, message: $"{device} has {size} bytes");
            DaemonLog.DiskResized(vm.Log, vm.Name, device, size);
        }

        return new DiskSize(device, size);
    }

    private async Task<ulong> ResizeInTurnAsync(string device, ulong? bytes)
    {
        VmDiskCopies.ThrowIfCopying(vm);
        IWorker? worker = vm.RequireWorkerForDevices();
        DiskSpec disk = devices.DiskOf(device, running: worker is not null);
        return await CallAsync(async () =>
        {
            using DiskGrowth growth = DiskGrowth.Plan(disk, bytes, storage);
            if (worker is not null)
            {
                logs.Grow(device, growth.Bytes);
                ulong grown = await worker.GrowDiskAsync(device, growth, CancellationToken.None).ConfigureAwait(false);
                logs.Grow(device, grown); // it may be larger than was known
                return grown;
            }

            growth.RequireNoWorker();

            // Nobody of ours has it; the lock keeps others away.
            using WorkerResources? locked = bytes is null ? null : WorkerResources.Open(disk, new DiskAccess(storage));
            growth.CarryOut();
            return growth.Bytes;
        }).ConfigureAwait(false);
    }
}
