using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Snapshots of a VM's disks: an empty differencing disk becomes the top of each, at one instant. The spec names the overlays before the
/// worker goes over to them, since they hold what is below them: whatever dies, a start from the spec finds the disk. Only when the worker
/// surely has not gone over does the spec get the old files back, and only then are overlays removed.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="agent">Freezes the guest.</param>
/// <param name="logs">Are cut with them.</param>
/// <param name="storage">Where they may be.</param>
internal sealed class VmSnapshots(VmSupervisor vm, VmDevices devices, VmGuestAgent agent, VmChangeLogs logs, StorageFolders storage)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Takes one, whether the VM runs or not. When this throws, the VM has the disks that it had, unless it says that the snapshot was
    /// taken: when the guest had to be frozen, and was not to the end.
    /// </summary>
    /// <param name="wish">Of which disks, and how.</param>
    /// <param name="cut">
    /// What was written to the disks is pending from that instant on, in the change logs of those that have one.
    /// </param>
    /// <param name="cancellation">Gives up, as long as it has not begun.</param>
    /// <param name="isQuiet">It is one of many, which nobody wants to hear of each time.</param>
    /// <returns>The disks, and whether the guest was frozen; null: that was not asked for, or nothing was to be frozen.</returns>
    /// <exception cref="ApiException">It cannot be taken.</exception>
    internal async Task<(List<PlannedSnapshot> Disks, GuestQuiesce? Quiesced)> TakeAsync(
        SnapshotWish wish, bool cut, CancellationToken cancellation, bool isQuiet = false)
    {
        List<PlannedSnapshot> disks = [];
        GuestQuiesce? quiesced = null;
        await vm.Operations.RunAsync(
            VmOperation.Snapshot,
            vm.Name,
            async () => (disks, quiesced) = await TakeInTurnAsync(wish, cut).ConfigureAwait(false),
            cancellation)
            .ConfigureAwait(false);
        if (!isQuiet)
        {
            Tell(disks, quiesced);
        }

        if (wish.QuiesceRequired && quiesced is { State: not QuiesceState.Frozen })
        {
            throw NotQuiesced(quiesced, "the snapshot was taken all the same");
        }

        return (disks, quiesced);
    }

    /// <summary>Takes one without a cut of change logs.</summary>
    /// <exception cref="ApiException">It cannot be taken.</exception>
    internal Task<(List<PlannedSnapshot> Disks, GuestQuiesce? Quiesced)> TakeAsync(SnapshotWish wish, CancellationToken cancellation) =>
        TakeAsync(wish, cut: false, cancellation);

    /// <summary>Finishes or undoes what an earlier daemon was at, in a worker that it left.</summary>
    internal async Task SettleAdoptedAsync(IWorker worker, CancellationToken cancellation)
    {
        if (vm.Store.Record.Snapshot is { } record)
        {
            if (IsCommitted(record))
            {
                await DecideAsync(worker, record, cancellation).ConfigureAwait(false);
            }
            else
            {
                Remove(record); // the worker was never asked, or has said that it did not go over
            }

            Forget();
        }
    }

    /// <summary>A snapshot was cut off, and there is no worker: the spec says which files are the disks.</summary>
    internal void SettleLost()
    {
        if (vm.Store.Record.Snapshot is { } record)
        {
            if (!IsCommitted(record))
            {
                Remove(record);
            }

            Forget();
        }
    }

    private void Tell(List<PlannedSnapshot> disks, GuestQuiesce? quiesced)
    {
        if (quiesced is not null)
        {
            vm.Events.Publish("guest-quiesce", vm.Name, message: quiesced.Describe());
            DaemonLog.SnapshotQuiesced(vm.Log, vm.Name, quiesced.Describe());
        }

        foreach (PlannedSnapshot disk in disks)
        {
            vm.Events.Publish(
                "disk-snapshot", vm.Name, message: $"{disk.Name} goes on in {disk.Overlay}; {disk.Disk.Path} stays as it was");
            DaemonLog.SnapshotTaken(vm.Log, vm.Name, disk.Name, disk.Disk.Path, disk.Overlay);
        }
    }

    private async Task<(List<PlannedSnapshot> Disks, GuestQuiesce? Quiesced)> TakeInTurnAsync(SnapshotWish wish, bool cut)
    {
        TimeSpan? limit = SnapshotPlan.QuiesceOf(wish);
        VmDiskCopies.ThrowIfCopying(vm);
        IWorker? worker = vm.RequireWorkerForDevices();
        List<PlannedSnapshot> disks = SnapshotPlan.Of(
            vm.Name, wish, await DisksAsync(worker).ConfigureAwait(false), TimeProvider.System.GetUtcNow());
        (string text, VmSpec spec) = Edited([.. disks.Select(disk => (disk.Disk, disk.After))]);
        using StoppedDisks? locked = worker is null ? StoppedDisks.Lock(vm.Name, disks, storage) : null;
        // From here on the guest waits. One that is off has nothing to freeze.
        await using GuestFreeze? freeze = worker is not null && limit is { } longest
            ? await agent.FreezeAsync(longest, CancellationToken.None).ConfigureAwait(false)
            : null;
        if (wish.QuiesceRequired && freeze is { IsFrozen: false })
        {
            throw NotQuiesced(freeze.Result, "no snapshot was taken");
        }

        if (worker is null && cut)
        {
            logs.CutAtRest(disks.Select(disk => (disk.Name, disk.Disk)));
        }

        SnapshotRecord record = Make(disks);
        try
        {
            // Written before the spec: a daemon that comes after the death of this one removes the overlays, or asks the worker.
            vm.Store.Change(stored => stored with { Snapshot = record });
            vm.Store.Commit();
            vm.Store.WriteSpec(text, spec);
        }
        catch
        {
            SettleLost();
            throw;
        }

        if (worker is not null)
        {
            await GoOverAsync(worker, disks, cut, record).ConfigureAwait(false);
        }
        else if (cut)
        {
            logs.MoveAtRest(disks.Select(disk => (disk.Name, disk.Overlay)));
        }

        GuestQuiesce? quiesced = freeze is null ? null : await freeze.EndAsync().ConfigureAwait(false);
        Forget();
        return (disks, quiesced);
    }

    private ApiException NotQuiesced(GuestQuiesce result, string so) =>
        new(409, "not-quiesced", "the guest was not frozen", $"{vm.Name}: {result.Describe()}; {so}");

    private async Task GoOverAsync(IWorker worker, List<PlannedSnapshot> disks, bool cut, SnapshotRecord record)
    {
        if (cut)
        {
            logs.Expect(disks.Select(disk => disk.Name));
        }

        try
        {
            (string, DiskSpec)[] overlays = [.. disks.Select(disk => (disk.Name, disk.After))];
            await worker.SnapshotDisksAsync(overlays, cut, CancellationToken.None).ConfigureAwait(false);
        }
        catch (WorkerException refused)
        {
            if (!await DecideAsync(worker, record, CancellationToken.None).ConfigureAwait(false))
            {
                Forget();
                throw ToApi(refused);
            }
        }

        disks.ForEach(disk => devices.Moved(disk.Name, disk.Overlay));
        logs.Check();
    }

    /// <summary>
    /// The spec names the overlays. A worker that is gone has written nothing to the old files since, or has gone over; one that lives says
    /// which: when it has not gone over, the spec gets the old files back. It answers in its turn, so what it was asked for is over then.
    /// </summary>
    /// <returns>False: the old files are the disks again.</returns>
    private async Task<bool> DecideAsync(IWorker worker, SnapshotRecord record, CancellationToken cancellation)
    {
        SnapshotDisk[] asked = [.. record.Disks.Select(disk => new SnapshotDisk(disk.Disk, disk.Overlay))];
        while (!worker.Ended.IsCompleted)
        {
            try
            {
                if (await worker.HasSnapshotAsync(asked, cancellation).ConfigureAwait(false))
                {
                    return true;
                }

                IReadOnlyList<DiskSpec> now = vm.Store.RequireSpec().Disks;
                (string text, VmSpec spec) = Edited([.. record.Disks.Select(disk =>
                {
                    DiskSpec after = now.First(each => IsSame(each.Path, disk.Overlay));
                    return (after, after with { Path = disk.Source, Format = disk.IsImage ? DiskFormat.Qcow2 : DiskFormat.Raw });
                })]);
                vm.Store.WriteSpec(text, spec);
                Remove(record);
                return false;
            }
            catch (WorkerException cause)
            {
                // Asked again: without an answer it may have gone over, or do so later.
                DaemonLog.SnapshotNotKnown(vm.Log, vm.Name, cause.Message);
            }

            await Task.WhenAny(worker.Ended, Task.Delay(s_interval, cancellation)).ConfigureAwait(false);
        }

        return true;
    }

    /// <summary>
    /// The disks. Those of a running VM have the names of this run; those that are plugged in for this run only are not in the spec.
    /// </summary>
    internal async Task<List<(string Name, DiskSpec Disk)>> DisksAsync(IWorker? worker)
    {
        DeviceList list = worker is null
            ? new DeviceList(SpecDevices.List(vm.Store.RequireSpec()))
            : await devices.ListAsync(CancellationToken.None).ConfigureAwait(false);
        return [.. list.Devices.Where(device => device.Kind is "disk")
            .Select(device => (device.Name, devices.DiskOf(device.Name, running: worker is not null)))];
    }

    private SnapshotRecord Make(List<PlannedSnapshot> disks)
    {
        List<PlannedSnapshot> made = [];
        try
        {
            foreach (PlannedSnapshot disk in disks)
            {
                CopyTarget.MakeImage(disk.Overlay, SnapshotPlan.OptionsOf(vm.Name, disk, storage), storage);
                made.Add(disk);
            }

            return new SnapshotRecord([.. disks.Select(disk => disk.Record)]);
        }
        catch (Exception cause)
        {
            Remove(new SnapshotRecord([.. made.Select(disk => disk.Record)]));
            throw cause is StorageException
                ? new ApiException(422, "disk-refused", "the differencing disk cannot be made", $"{vm.Name}: {cause.Message}", inner: cause)
                : cause;
        }
    }

    private (string Text, VmSpec Spec) Edited(IReadOnlyList<(DiskSpec From, DiskSpec To)> changes)
    {
        List<DiskSpec> stored = [.. vm.Store.RequireSpec().Disks];
        int[] places = [.. changes.Select(change => stored.FindIndex(disk => IsSame(disk.Path, change.From.Path)))];
        int missing = Array.FindIndex(places, place => place < 0);
        if (missing >= 0)
        {
            throw new ApiException(409, "disk-not-stored", "the disk is not in the stored spec", $"{vm.Name}: {changes[missing].From.Path} "
                + "is plugged in for this run only: a snapshot is for disks that stay; name the others with --disk");
        }

        return SpecDevices.Edit(
            vm.Store,
            (text, folder) =>
            {
                string? edited = text;
                for (int i = 0; i < places.Length && edited is not null; i++)
                {
                    edited = SpecEdit.ReplaceDisk(edited, folder, places[i], changes[i].To);
                }

                return edited;
            },
            spec => spec with
            {
                Disks = [.. spec.Disks.Select((disk, i) => Array.IndexOf(places, i) is >= 0 and var at ? changes[at].To : disk)],
            });
    }

    // All overlays came into the spec together. A spec that cannot be read: nothing is removed.
    private bool IsCommitted(SnapshotRecord record) => vm.Store.Spec is not { } spec
        || record.Disks.Any(disk => spec.Disks.Any(each => IsSame(each.Path, disk.Overlay)));

    private static bool IsSame(string one, string other) =>
        string.Equals(Path.GetFullPath(one, "/"), Path.GetFullPath(other, "/"), StringComparison.Ordinal);

    private void Remove(SnapshotRecord record)
    {
        foreach (SnapshotDiskRecord disk in record.Disks)
        {
            try
            {
                CopyTarget.Remove(disk.Overlay, storage);
            }
            catch (Exception cause) when (cause is StorageException or IOException or UnauthorizedAccessException)
            {
                DaemonLog.PartialStays(vm.Log, vm.Name, disk.Overlay, cause.Message);
            }
        }
    }

    private void Forget()
    {
        vm.Store.Change(record => record with { Snapshot = null });
        vm.Store.CommitOrLog();
    }

    /// <summary>Disks of a VM that is off: locked, so that nobody uses them while they become bases.</summary>
    private sealed class StoppedDisks(List<DiskFiles> files) : IDisposable
    {
        internal static StoppedDisks Lock(string vm, IReadOnlyList<PlannedSnapshot> disks, StorageFolders storage)
        {
            List<DiskFiles> files = [];
            try
            {
                foreach (PlannedSnapshot disk in disks)
                {
                    files.Add(DiskFiles.Open(disk.Disk, new DiskAccess(storage)));
                    if (files[^1].Images >= Vmm.Storage.Qcow2.DiskImageChain.MostImages)
                    {
                        throw new ApiException(422, "disk-refused", "the disk can have no more images",
                            $"{vm}: {disk.Name} has a chain of {files[^1].Images} images: commit some, or convert it");
                    }
                }

                return new StoppedDisks(files);
            }
            catch (Exception cause)
            {
                files.ForEach(file => file.Dispose());
                throw cause is WorkerException refused ? ToApi(refused) : cause;
            }
        }

        public void Dispose() => files.ForEach(file => file.Dispose());
    }
}
