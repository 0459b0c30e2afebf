using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Disks of a running VM whose top image gets what it sees through images below it, to go on without those. The spec names the top before,
/// meanwhile and after, and the top names the images below it that it needs: whatever dies, the next start has a right chain. So a daemon
/// that comes later only gives up what the worker was at; what was brought up stays, and is no loss.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
internal sealed class VmDiskStreams(VmSupervisor vm, VmDevices devices)
{
    /// <summary>Streams a disk. When this throws, the VM goes on with the chain that it had, and its disk is the same.</summary>
    /// <param name="device">Name of the disk.</param>
    /// <param name="wish">How.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It cannot be streamed.</exception>
    internal async Task StreamAsync(string device, DiskStreamWish wish, Action<double> progress, CancellationToken cancellation)
    {
        await new Job(vm, devices, device, wish).RunAsync(progress, cancellation).ConfigureAwait(false);
        string now = wish.Base is null ? "on no other image" : $"on {wish.Base}";
        vm.Events.Publish("disk-streamed", vm.Name, message: $"{device} stands {now} now");
        DaemonLog.DiskStreamed(vm.Log, vm.Name, device, now);
    }

    private sealed class Job(VmSupervisor vm, VmDevices devices, string device, DiskStreamWish wish) : VmDiskJob(vm, device)
    {
        protected override (VmOperation Begin, VmOperation Finish) Turns =>
            (VmOperation.BeginDiskStream, VmOperation.FinishDiskStream);

        protected override string Verb => "streamed";

        protected override string Otherwise => "the images that it has";

        protected override Task<IWorker> PrepareAsync(CancellationToken cancellation)
        {
            VmDiskCopies.ThrowIfCopying(Vm);
            IWorker worker = Vm.RequireWorkerForDevices() ?? throw Vm.WrongState("does not run: vmmctl disk stream does it with its file");
            DiskSpec disk = devices.DiskOf(Device, running: true);
            string? wrong = disk.Format != DiskFormat.Qcow2 ? $"{disk.Path} is no image: there is nothing below it"
                : wish.BytesPerSecond is 0 ? "bytesPerSecond: 0, expected more, or none"
                : wish.Base is "" ? "base: expected a path"
                : null;
            if (wrong is not null)
            {
                throw new ApiException(422, "stream-invalid", "the disk cannot be streamed like that", $"{Vm.Name}: {wrong}");
            }

            // Written before the worker begins: what must not meet it is refused, also by a daemon that comes after the death of this one.
            Vm.Store.Change(record => record with { Copy = new DiskCopyRecord(Device, disk.Path, disk.Path) });
            try
            {
                Vm.Store.Commit();
                return Task.FromResult(worker);
            }
            catch
            {
                Undo();
                throw;
            }
        }

        protected override Task BeginAsync(IWorker worker, CancellationToken cancellation) =>
            worker.StreamDiskAsync(Device, wish, cancellation);

        protected override async Task FinishAsync(IWorker worker, CancellationToken cancellation)
        {
            await worker.StepDiskCopyAsync(Device, DiskCopyStep.Finish, cancellation).ConfigureAwait(false);
            Undo();
        }

        protected override void Undo()
        {
            Vm.Store.Change(record => record with { Copy = null });
            Vm.Store.CommitOrLog();
        }
    }
}
