using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// Cuts of a VM's disks for a replica, all at one instant. One that runs goes on in overlays meanwhile (<see cref="VmInstants"/>); the
/// disks of one that is off are locked, and are cut once until it starts again.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="snapshots">Knows its disks.</param>
/// <param name="instants">Lets them be read while the VM goes on.</param>
/// <param name="storage">Where disks may be.</param>
internal sealed class VmCuts(VmSupervisor vm, VmSnapshots snapshots, VmInstants instants, StorageFolders storage) : IRunObserver
{
    private long _runs, _closedAt = -1;

    /// <summary>Who replicates the VM, and hears that it is gone; null: nobody does.</summary>
    internal Action? Gone { get; set; }

    /// <summary>The last cut was made while the VM was off, and it has not started since: nothing is left to be cut.</summary>
    internal bool IsClosed => Interlocked.Read(ref _closedAt) == Interlocked.Read(ref _runs);

    /// <inheritdoc/>
    public void RunBegan(IWorker worker) => Interlocked.Increment(ref _runs);

    /// <inheritdoc/>
    public void RunEnded()
    {
    }

    /// <summary>What is cut is not what was cut before: also a VM that is off is cut once more.</summary>
    internal void Reopen() => Interlocked.Exchange(ref _closedAt, -1);

    /// <exception cref="ApiException">The VM is replicated.</exception>
    internal void RequireNotReplicated()
    {
        if (Gone is not null)
        {
            throw new ApiException(409, "vm-replicated", "the VM is replicated",
                $"{vm.Name} is replicated to another site: end that first with 'vmmctl replica disable {vm.Name}'; its points stay there");
        }
    }

    /// <summary>The disks that a cut would have now.</summary>
    /// <param name="wanted">Their names; null: all that can be written.</param>
    /// <exception cref="ApiException">One is not there or cannot be replicated, or there are none.</exception>
    internal async Task<IReadOnlyList<ReplicaDisk>> DisksAsync(IReadOnlyList<string>? wanted)
    {
        List<(string Name, DiskSpec Disk)> all = await snapshots.DisksAsync(vm.RequireWorkerForDevices()).ConfigureAwait(false);
        return [.. Wanted(all, wanted, isStrict: true).Select(each =>
            new ReplicaDisk(each.Name, (DiskFacts.Read(vm.Name, each.Name, each.Disk, storage).Bytes + 511) & ~511ul))];
    }

    /// <summary>Makes a point.</summary>
    /// <param name="order">Of what, and where to.</param>
    /// <param name="cancellation">Gives up; the VM has its disks all the same.</param>
    /// <returns>The point; null: the VM is off, and was cut since.</returns>
    /// <exception cref="ApiException">There is none: the spool has the points that it had.</exception>
    internal async Task<SpooledPoint?> CutAsync(CutOrder order, CancellationToken cancellation)
    {
        using IDisposable held = instants.TryHold()
            ?? throw new ApiException(
                409, "vm-busy", "the disks are being read", $"{vm.Name}: a backup goes on: the next cut comes after it");
        VmDiskCopies.ThrowIfCopying(vm);
        IWorker? worker = vm.RequireWorkerForDevices();
        long runs = Interlocked.Read(ref _runs);
        if (worker is null && IsClosed)
        {
            return null;
        }

        string spec = WholeSpec();
        List<(string Name, DiskSpec Disk)> disks = Wanted(
            await snapshots.DisksAsync(worker).ConfigureAwait(false), order.Disks, isStrict: false);
        string[] names = [.. disks.Select(disk => disk.Name)];
        await order.Changes.BeginAsync(names, cancellation).ConfigureAwait(false);
        SpooledPoint? made = null;
        try
        {
            CutWish wish = order.WishOf(vm.Store.Record.Id, spec, isLast: worker is null);
            if (worker is null)
            {
                // In turn: a start comes behind it, and meets no disks that are locked.
                await vm.Operations.RunAsync(VmOperation.Cut, vm.Name, async () =>
                {
                    RequireOff();
                    order.Changes.CutAtRest(disks);
                    made = await StoreAsync(order, wish, disks, cancellation).ConfigureAwait(false);
                }, cancellation).ConfigureAwait(false);
                Interlocked.Exchange(ref _closedAt, runs);
                return made;
            }

            (made, _) = await instants.ReadAsync(
                new SnapshotWish(BackupPlan.NewReplicaTag(), names, null, order.QuiesceSeconds),
                (taken, quiesced) => StoreAsync(
                    order, wish with { Quiesced = quiesced?.Describe() }, [.. taken.Select(disk => (disk.Name, disk.Disk))], cancellation),
                isCut: true,
                cancellation).ConfigureAwait(false);
            return made;
        }
        finally
        {
            // Only when the hashes here are those of the point, too: otherwise it may be lost, and what it has with it.
            await order.Changes.EndAsync(isDurable: made is not null).ConfigureAwait(false);
        }
    }

    private void RequireOff()
    {
        if (vm.RequireWorkerForDevices() is not null)
        {
            throw new ApiException(409, "vm-busy", "the VM was started", $"{vm.Name} was started: the next cut comes while it runs");
        }
    }

    private async Task<SpooledPoint> StoreAsync(
        CutOrder order, CutWish wish, IReadOnlyList<(string Name, DiskSpec Disk)> disks, CancellationToken cancellation)
    {
        CutDisk[] sources = [.. disks.Select(disk => new CutDisk(
            disk.Name,
            disk.Disk.Path,
            disk.Disk.Format == DiskFormat.Qcow2 ? "qcow2" : "raw",
            order.All is { } why ? ExtentSet.All(why) : order.Changes.Pending(disk.Name, disk.Disk.Path)))];
        try
        {
            return await Task.Run(
                () => CutMaker.Run(
                    sources, wish, order.Spool, new ToolProgress(_ => { }, cancellation), path => storage.Open(path, writable: false)),
                cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is BlockException or StorageException or KernelException)
        {
            throw cause is BlockException { Status: DiskStatus.NoSpace }
                ? new ApiException(507, "no-space", "there is no room for the cut", $"{vm.Name}: {cause.Message}", inner: cause)
                : new ApiException(422, "cut-failed", "the disks cannot be cut", $"{vm.Name}: {cause.Message}", inner: cause);
        }
    }

    // The other site has no folder that relative paths could be relative to.
    private string WholeSpec()
    {
        VmRecord record = vm.Store.Record;
        try
        {
            return record.Folder.Length == 0 ? record.Spec : SpecPaths.MakeWhole(record.Spec, record.Folder) ?? record.Spec;
        }
        catch (SpecException)
        {
            return record.Spec; // the other site says what is wrong with it when it is to run
        }
    }

    // One that was taken out is in no further point; one that was added is, whole.
    private List<(string Name, DiskSpec Disk)> Wanted(
        List<(string Name, DiskSpec Disk)> all, IReadOnlyList<string>? wanted, bool isStrict)
    {
        List<(string Name, DiskSpec Disk)> disks = [];
        foreach (string name in wanted ?? [.. all.Where(each => !each.Disk.ReadOnly && !each.Disk.IsRemote).Select(each => each.Name)])
        {
            DiskSpec? disk = all.Find(each => string.Equals(each.Name, name, StringComparison.Ordinal)).Disk;
            string? wrong = disk is null ? $"{vm.Name} has no disk {name}; 'vmmctl vm devices {vm.Name}' shows those it has"
                : disk.ReadOnly ? $"{name} is read only: its file stays as it is, copy that"
                : disk.IsRemote ? $"{name} is on a server, which has to replicate it; name the others with --disk"
                : disks.Exists(each => string.Equals(each.Name, name, StringComparison.Ordinal)) ? $"disks: {name} is named twice"
                : null;
            if (wrong is null)
            {
                disks.Add((name, disk!));
            }
            else if (isStrict)
            {
                throw disk is null ? new ApiException(404, "device-not-found", "no such device", wrong) : Invalid(wrong);
            }
        }

        return disks.Count > 0 ? disks : throw Invalid($"{vm.Name} has no disks that can be replicated");
    }

    private static ApiException Invalid(string what) => new(422, "replica-invalid", "the VM cannot be replicated like that", what);
}
