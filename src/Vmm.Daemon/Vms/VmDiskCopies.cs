using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Disks of a running VM that are copied to another storage, to go on there. What is written behind each step lets a daemon that comes
/// later know: as long as the spec names the old file the copy is nothing, and its file is removed; from when it names the new one, that
/// one is the disk. In between both have everything.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="storage">Where they may be.</param>
internal sealed class VmDiskCopies(VmSupervisor vm, VmDevices devices, StorageFolders storage)
{
    private readonly DiskHandover _handover = new(vm, "copy");

    private StorageFolders Storage => storage;

    /// <summary>Copies a disk, and lets the VM go on with the copy. When this throws, the VM has the disk that it had.</summary>
    /// <param name="device">Name of the disk.</param>
    /// <param name="wish">Where to.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It cannot be copied.</exception>
    internal async Task CopyAsync(string device, DiskCopyWish wish, Action<double> progress, CancellationToken cancellation)
    {
        Job job = new(this, vm, devices, device, wish);
        await job.RunAsync(progress, cancellation).ConfigureAwait(false);
        (string from, string to) = (job.Plan.From.Path, job.Plan.To.Path);
        vm.Events.Publish("disk-copied", vm.Name, message: $"{device} is in {to} now; {from} is as it was then");
        DaemonLog.DiskCopied(vm.Log, vm.Name, device, from, to);
    }

    /// <summary>For what must not meet a copy.</summary>
    /// <exception cref="ApiException">A disk is being copied.</exception>
    internal void ThrowIfCopying() => ThrowIfCopying(vm);

    /// <inheritdoc cref="ThrowIfCopying()"/>
    internal static void ThrowIfCopying(VmSupervisor vm)
    {
        (VmRecord record, string? what) = (vm.Store.Record, null);
        what = record.Copy is { } copy ? $"{copy.Disk} is being {(copy.IsStream ? "streamed" : $"copied to {copy.Target}")}"
            : record.Commit is { } commit ? $"{commit.Disk} is being committed to {commit.Base}"
            : null;
        if (what is not null)
        {
            throw new ApiException(409, "disk-copying", "a disk is being copied, streamed or committed",
                $"{vm.Name}: {what}: wait for the job, or cancel it");
        }
    }

    /// <summary>Finishes or undoes what an earlier daemon was at, in a worker that it left.</summary>
    internal async Task SettleAdoptedAsync(IWorker worker, CancellationToken cancellation)
    {
        if (vm.Store.Record.Copy is not { } record)
        {
            return;
        }

        try
        {
            if (!record.IsStream && IsCommitted(record) && await DecideAsync(worker, record, cancellation).ConfigureAwait(false))
            {
                Forget();
                return;
            }

            await worker.StepDiskCopyAsync(record.Disk, DiskCopyStep.Cancel, cancellation).ConfigureAwait(false);
        }
        catch (WorkerException cause)
        {
            DaemonLog.CopyNotUndone(vm.Log, vm.Name, cause.Message); // it has ended, say
        }

        SettleLost();
    }

    /// <summary>A copy was cut off, and no worker has it: the spec says which file is the disk.</summary>
    internal void SettleLost()
    {
        if (vm.Store.Record.Copy is { } record)
        {
            if (!IsCommitted(record))
            {
                Remove(record.Target);
            }

            Forget();
        }
    }

    private Task<bool> DecideAsync(IWorker worker, DiskCopyRecord record, CancellationToken cancellation) => _handover.DecideAsync(
        worker, record.Disk, record.Target, now => now with { Source = record.SourceBefore }, cancellation);

    private bool IsCommitted(DiskCopyRecord record) => vm.Store.Spec is not { } spec
        || DiskHandover.Names(spec, record.Target); // a spec that cannot be read: nothing is removed

    private void Remove(string target)
    {
        if (NbdUri.Is(target))
        {
            return; // the server keeps what it got
        }

        try
        {
            CopyTarget.Remove(target, storage);
        }
        catch (Exception cause) when (cause is StorageException or IOException or UnauthorizedAccessException)
        {
            DaemonLog.PartialStays(vm.Log, vm.Name, target, cause.Message);
        }
    }

    private void Forget()
    {
        vm.Store.Change(record => record with { Copy = null });
        vm.Store.CommitOrLog();
    }

    private sealed class Job(VmDiskCopies copies, VmSupervisor vm, VmDevices devices, string device, DiskCopyWish wish)
        : VmDiskJob(vm, device)
    {
        private DiskCopyPlan? _plan;

        /// <summary>What is copied where, once that has begun.</summary>
        internal DiskCopyPlan Plan => _plan!;

        protected override (VmOperation Begin, VmOperation Finish) Turns => (VmOperation.BeginDiskCopy, VmOperation.FinishDiskCopy);

        protected override string Verb => "copied";

        protected override string Otherwise => Plan.From.Path;

        // The worker died behind the write of the spec, or this daemon ends: the target is the disk, and who comes next knows.
        protected override bool IsDecided => Vm.Store.Record.Copy is { } record && copies.IsCommitted(record);

        protected override async Task<IWorker> PrepareAsync(CancellationToken cancellation)
        {
            ThrowIfCopying(Vm);
            IWorker worker = Vm.RequireWorkerForDevices() ?? throw Vm.WrongState("has no running disk to copy: copy its file instead");
            DiskSpec from = devices.DiskOf(Device, running: true);
            _plan = DiskCopyPlan.Of(Vm.Name, Device, from, wish, copies.Storage);
            _ = copies._handover.Edited(from, _plan.To); // a spec that cannot be changed is an error now
            await _plan.MakeAsync(worker, copies.Storage, cancellation).ConfigureAwait(false);
            try
            {
                // Written before the worker has it: a daemon that comes after the death of this one removes it, or goes on with it.
                DiskCopyRecord begun = new(Device, from.Path, _plan.To.Path, VmSpecJson.Write(from).GetRawText());
                Vm.Store.Change(record => record with { Copy = begun });
                Vm.Store.Commit();
                return worker;
            }
            catch
            {
                Vm.Store.Change(record => record with { Copy = null });
                copies.Remove(_plan.To.Path);
                throw;
            }
        }

        protected override Task BeginAsync(IWorker worker, CancellationToken cancellation) =>
            worker.CopyDiskAsync(Device, Plan.To, wish, cancellation);

        protected override async Task FinishAsync(IWorker worker, CancellationToken cancellation)
        {
            await worker.StepDiskCopyAsync(Device, DiskCopyStep.Seal, cancellation).ConfigureAwait(false);
            DiskCopyRecord record = Vm.Store.Record.Copy!;
            (string text, VmSpec spec) = copies._handover.Edited(Plan.From, Plan.To);
            Vm.Store.WriteSpec(text, spec); // from here on the target is the disk, whatever dies
            if (!await copies.DecideAsync(worker, record, CancellationToken.None).ConfigureAwait(false))
            {
                throw new ApiException(502, ControlCodes.DiskCopyFailed, "the disk could not be copied",
                    $"{Vm.Name}: {Device}: the target failed in the last moment; the VM goes on with {Plan.From.Path}");
            }

            devices.Moved(Device, Plan.To.Path);
            copies.Forget();
        }

        protected override void Undo() => copies.SettleLost();
    }
}
