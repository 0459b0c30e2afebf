using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Disks of a running VM that are committed into an image of their own chain, to go on there. As long as the spec names the top the chain
/// is the disk, and the base holds nothing that changes it; from when the spec names the base, that one is. In between both have
/// everything, so whatever dies, the next start has a right disk.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="storage">Where they may be.</param>
/// <param name="othersOver">Names VMs other than one that use a file, or have images over it.</param>
internal sealed class VmDiskCommits(
    VmSupervisor vm, VmDevices devices, StorageFolders storage, Func<string, string, IReadOnlyList<string>> othersOver)
{
    private readonly DiskHandover _handover = new(vm, "commit");

    private StorageFolders Storage => storage;

    /// <summary>Commits a disk. When this throws, the VM has the disk that it had, in the same files.</summary>
    /// <param name="device">Name of the disk.</param>
    /// <param name="wish">How.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <param name="isQuiet">It is one of many, which nobody wants to hear of each time.</param>
    /// <exception cref="ApiException">It cannot be committed.</exception>
    internal async Task CommitAsync(
        string device, DiskCommitWish wish, Action<double> progress, CancellationToken cancellation, bool isQuiet = false)
    {
        Job job = new(this, vm, devices, device, wish);
        await job.RunAsync(progress, cancellation).ConfigureAwait(false);
        (DiskSpec from, DiskSpec to) = (job.Plan.From, job.Plan.To);
        if (!isQuiet)
        {
            vm.Events.Publish("disk-committed", vm.Name, message: $"{device} is in {to.Path} now; what {from.Path} had is in it");
            DaemonLog.DiskCommitted(vm.Log, vm.Name, device, from.Path, to.Path);
        }

        if (wish.Delete)
        {
            RemoveAbove([from.Path, .. job.Between]);
        }
    }

    /// <summary>Finishes or undoes what an earlier daemon was at, in a worker that it left.</summary>
    internal async Task SettleAdoptedAsync(IWorker worker, CancellationToken cancellation)
    {
        if (vm.Store.Record.Commit is not { } record || vm.Store.Spec is null)
        {
            return; // with a spec that cannot be read nobody knows which is the disk: the worker goes on with both
        }

        try
        {
            if (!IsCommitted(record) || !await DecideAsync(worker, record, cancellation).ConfigureAwait(false))
            {
                await worker.StepDiskCopyAsync(record.Disk, DiskCopyStep.Cancel, cancellation).ConfigureAwait(false);
            }
        }
        catch (WorkerException cause)
        {
            DaemonLog.CopyNotUndone(vm.Log, vm.Name, cause.Message); // it has ended, say
        }

        Forget();
    }

    /// <summary>A commit was cut off, and no worker has it: the spec says which file is the disk, and it is right.</summary>
    internal void SettleLost()
    {
        if (vm.Store.Record.Commit is not null)
        {
            Forget();
        }
    }

    // Only what nobody has any more. A name between was an image's word: it counts when the worker had that file open.
    private void RemoveAbove(string[] above)
    {
        foreach (string path in above)
        {
            try
            {
                if (OthersOver(path) is { Count: > 0 } others)
                {
                    throw new StorageException(path, $"is a disk of {string.Join(", ", others)}, or below one");
                }

                CopyTarget.RemoveUnlocked(path, storage);
            }
            catch (Exception cause) when (cause is StorageException or IOException or UnauthorizedAccessException)
            {
                DaemonLog.CommittedStays(vm.Log, vm.Name, path, cause.Message);
                vm.Events.Publish(
                    "disk-file-stays", vm.Name, message: $"{path} was committed and is not needed, and stays: {cause.Message}");
            }
        }
    }

    private Task<bool> DecideAsync(IWorker worker, DiskCommitRecord record, CancellationToken cancellation) => _handover.DecideAsync(
        worker, record.Disk, record.Base, now => now with { Path = record.Source, Format = DiskFormat.Qcow2 }, cancellation);

    private IReadOnlyList<string> OthersOver(string path) => othersOver(path, vm.Name);

    private bool IsCommitted(DiskCommitRecord record) =>
        vm.Store.Spec is { } spec && DiskHandover.Names(spec, record.Base);

    private void Forget()
    {
        vm.Store.Change(record => record with { Commit = null });
        vm.Store.CommitOrLog();
    }

    private sealed class Job(VmDiskCommits commits, VmSupervisor vm, VmDevices devices, string device, DiskCommitWish wish)
        : VmDiskJob(vm, device)
    {
        private CommitPlan? _plan;

        /// <summary>What it is.</summary>
        internal CommitPlan Plan => _plan!;

        /// <summary>Images between the top and the base that the worker had open.</summary>
        internal string[] Between { get; private set; } = [];

        protected override (VmOperation Begin, VmOperation Finish) Turns => (VmOperation.BeginDiskCommit, VmOperation.FinishDiskCommit);

        protected override string Verb => "committed";

        protected override string Otherwise => Plan.From.Path;

        // The worker died behind the write of the spec, or this daemon ends: the base is the disk, and who comes next knows.
        protected override bool IsDecided => Vm.Store.Record.Commit is { } record && commits.IsCommitted(record);

        protected override Task<IWorker> PrepareAsync(CancellationToken cancellation)
        {
            VmDiskCopies.ThrowIfCopying(Vm);
            IWorker worker = Vm.RequireWorkerForDevices() ?? throw Vm.WrongState("does not run: vmmctl disk commit does it with its files");
            string[] own = [.. Vm.Store.RequireSpec().Disks.Select(disk => Path.GetFullPath(disk.Path, "/"))];
            _plan = CommitPlan.Of(Vm.Name, Device, devices.DiskOf(Device, running: true), wish, own, commits.Storage);
            _ = commits._handover.Edited(Plan.From, Plan.To); // a spec that cannot be changed is an error now
            if (commits.OthersOver(Plan.To.Path) is { Count: > 0 } others)
            {
                throw new ApiException(409, ControlCodes.DiskInUse, "the base is in use", $"{Vm.Name}: {Plan.To.Path} is a disk of "
                    + $"{string.Join(", ", others)}, or below one, and would change under it");
            }

            Between = [.. Plan.Between.Where(path => OpenFiles.MayHold(worker.ProcessId, path))];
            // Written before the worker begins: what must not meet it is refused, also by a daemon that comes after the death of this one.
            Vm.Store.Change(record => record with { Commit = Plan.Record });
            try
            {
                Vm.Store.Commit();
                return Task.FromResult(worker);
            }
            catch
            {
                Vm.Store.Change(record => record with { Commit = null });
                throw;
            }
        }

        protected override Task BeginAsync(IWorker worker, CancellationToken cancellation) =>
            worker.CommitDiskAsync(Device, Plan.To, wish.BytesPerSecond, cancellation);

        protected override async Task FinishAsync(IWorker worker, CancellationToken cancellation)
        {
            await worker.StepDiskCopyAsync(Device, DiskCopyStep.Seal, cancellation).ConfigureAwait(false);
            (string text, VmSpec spec) = commits._handover.Edited(Plan.From, Plan.To);
            Vm.Store.WriteSpec(text, spec); // from here on the base is the disk, whatever dies
            if (!await commits.DecideAsync(worker, Plan.Record, CancellationToken.None).ConfigureAwait(false))
            {
                throw new ApiException(502, ControlCodes.DiskCopyFailed, "the disk could not be committed",
                    $"{Vm.Name}: {Device}: {Plan.To.Path} failed in the last moment; the VM goes on with {Plan.From.Path}");
            }

            devices.Moved(Device, Plan.To.Path);
            commits.Forget();
        }

        protected override void Undo() => commits.Forget();
    }
}
