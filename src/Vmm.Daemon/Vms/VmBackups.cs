using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Backups of a VM. One that runs goes on in overlays, all its disks at one instant, while what they stand on is read; then those are
/// committed. Snapshot and commit see to it that the VM has right disks whatever dies. An overlay that is left (the VM or the daemon ended
/// meanwhile) is merged by the next backup of the VM when it runs. The disks of one that is off are locked while they are read.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="snapshots">Takes the instant.</param>
/// <param name="commits">Merges overlays.</param>
/// <param name="storage">Where folders and disks may be.</param>
internal sealed class VmBackups(VmSupervisor vm, VmDevices devices, VmSnapshots snapshots, VmDiskCommits commits, StorageFolders storage)
{
    // Reading is nearly all of it; what a guest writes meanwhile is little.
    private const double ReadingPart = 0.9;

    private int _goesOn;

    /// <summary>Makes a point. When this throws, the folder has the points that it had.</summary>
    /// <param name="wish">Of which disks, where, and how.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up; overlays are merged all the same.</param>
    /// <exception cref="ApiException">It cannot be made.</exception>
    internal async Task BackupAsync(BackupRequest wish, Action<double> progress, CancellationToken cancellation)
    {
        BackupPlan.Check(wish);
        if (Interlocked.Exchange(ref _goesOn, 1) != 0)
        {
            throw new ApiException(
                409, "backup-running", "a backup goes on", $"{vm.Name}: a backup of it is being made: wait for its end, or cancel its job");
        }

        try
        {
            using FolderFile folder = HoldFolder(wish);
            IWorker? worker = vm.RequireWorkerForDevices();
            List<(string Name, DiskSpec Disk)> disks =
                BackupPlan.Of(vm.Name, wish, await snapshots.DisksAsync(worker).ConfigureAwait(false));
            if (worker is null)
            {
                StoredPoint off = await StoreAsync(folder, wish, disks, null, progress, cancellation).ConfigureAwait(false);
                Tell(off, wish, []);
                return;
            }

            await BackUpRunningAsync(folder, wish, disks, progress, cancellation).ConfigureAwait(false);
        }
        finally
        {
            Volatile.Write(ref _goesOn, 0);
        }
    }

    private async Task BackUpRunningAsync(
        FolderFile folder,
        BackupRequest wish,
        List<(string Name, DiskSpec Disk)> disks,
        Action<double> progress,
        CancellationToken cancellation)
    {
        StoredPoint made;
        List<string> left = [];
        try
        {
            (List<PlannedSnapshot> taken, GuestQuiesce? quiesced) = await snapshots.TakeAsync(
                new SnapshotWish(
                    BackupPlan.NewTag(), [.. disks.Select(disk => disk.Name)], null, wish.QuiesceSeconds, wish.QuiesceRequired),
                cancellation).ConfigureAwait(false);
            made = await StoreAsync(
                folder,
                wish,
                [.. taken.Select(disk => (disk.Name, disk.Disk))],
                quiesced?.Describe(),
                part => progress(ReadingPart * part),
                cancellation).ConfigureAwait(false);
        }
        finally
        {
            // Also when it failed: the snapshot may have been taken all the same.
            foreach ((string name, _) in disks)
            {
                if (await MergeAsync(name).ConfigureAwait(false) is { } stays)
                {
                    left.Add(stays);
                    DaemonLog.BackupOverlayStays(vm.Log, vm.Name, stays);
                }
            }
        }

        Tell(made, wish, left);
    }

    private async Task<StoredPoint> StoreAsync(
        FolderFile folder,
        BackupRequest wish,
        List<(string Name, DiskSpec Disk)> disks,
        string? quiesced,
        Action<double> progress,
        CancellationToken cancellation)
    {
        BackupWish how = new()
        {
            Folder = folder.HeldPath,
            Owner = Guid.TryParse(vm.Store.Record.Id, out Guid id) ? id : BackupWish.OwnerOf(vm.Store.Record.Id),
            Name = vm.Name,
            Time = TimeProvider.System.GetUtcNow(),
            Quiesced = quiesced,
            Full = wish.Full,
            BytesPerSecond = wish.BytesPerSecond,
        };
        try
        {
            return await Task.Run(
                () => BackupCreator.Run(
                    [.. disks.Select(disk => BackupPlan.SourceOf(disk.Name, disk.Disk))],
                    how,
                    new ToolProgress(progress, cancellation),
                    path => storage.Open(path, writable: false)),
                cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is BlockException or StorageException or KernelException)
        {
            string what = cause.Message.Replace(folder.HeldPath, wish.Folder, StringComparison.Ordinal);
            throw BackupPlan.ToApi(vm.Name, what, cause);
        }
    }

    // One whose owner gave the disk another top meanwhile is an image of its chain as others are.
    /// <returns>That the overlay of a disk stays, and why; null: it is merged, or there is none.</returns>
    private async Task<string?> MergeAsync(string name)
    {
        string overlay = "its overlay";
        try
        {
            DiskSpec now = devices.DiskOf(name, running: vm.RequireWorkerForDevices() is not null);
            if (BackupPlan.IsOverlay(now.Path))
            {
                overlay = now.Path;
                DiskCommitWish wish = new(BackupPlan.BaseOf(now.Path, storage), Delete: true);
                await commits.CommitAsync(name, wish, _ => { }, CancellationToken.None).ConfigureAwait(false);
            }

            return null;
        }
        catch (ApiException e)
        {
            return Stays(e.Problem.Detail);
        }
        catch (Exception e) when (e is BlockException or StorageException or KernelException)
        {
            return Stays(e.Message);
        }

        string Stays(string why) => $"{name} goes on in {overlay} until the next backup: {why}";
    }

    private void Tell(StoredPoint made, BackupRequest wish, List<string> left)
    {
        BackupPoint point = made.Point!;
        string disks = string.Join(", ", point.Disks.Select(disk =>
            $"{disk.Name} {disk.Stored >> 10} KiB {(disk.Why is null ? "that changed" : $"with all of it ({disk.Why})")}"));
        string quiesced = point.Quiesced is { } how ? "; " + how : "";
        string stays = left.Count == 0 ? "" : "; " + string.Join("; ", left);
        vm.Events.Publish("backup", vm.Name, message: $"point {made.Number} is in {wish.Folder}: {disks}{quiesced}{stays}");
        DaemonLog.BackedUp(vm.Log, vm.Name, made.Number, wish.Folder);
    }

    private FolderFile HoldFolder(BackupRequest wish)
    {
        try
        {
            string full = Path.GetFullPath(wish.Folder, "/").TrimEnd('/');
            if (!Directory.Exists(full))
            {
                using FolderFile around = storage.HoldFolder(Path.GetDirectoryName(full) ?? "/");
                _ = Directory.CreateDirectory(
                    Path.Combine(around.HeldPath, Path.GetFileName(full)),
                    UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            }

            return storage.HoldFolder(full);
        }
        catch (Exception cause) when (cause is StorageException or IOException or UnauthorizedAccessException)
        {
            throw BackupPlan.ToApi(vm.Name, cause.Message, cause);
        }
    }
}
