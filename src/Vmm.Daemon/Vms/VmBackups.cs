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
/// Backups of a VM. Of one that runs all disks are read as they were at one instant (<see cref="VmInstants"/>); the disks of one that is
/// off are locked while they are read.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="snapshots">Knows its disks.</param>
/// <param name="instants">Lets them be read while the VM goes on.</param>
/// <param name="storage">Where folders and disks may be.</param>
internal sealed class VmBackups(VmSupervisor vm, VmSnapshots snapshots, VmInstants instants, StorageFolders storage)
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
            using IDisposable held = await instants.HoldAsync(cancellation).ConfigureAwait(false); // a cut for a replica ends first
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
        (StoredPoint made, IReadOnlyList<string> left) = await instants.ReadAsync(
            new SnapshotWish(
                BackupPlan.NewTag(), [.. disks.Select(disk => disk.Name)], null, wish.QuiesceSeconds, wish.QuiesceRequired),
            (taken, quiesced) => StoreAsync(
                folder,
                wish,
                [.. taken.Select(disk => (disk.Name, disk.Disk))],
                quiesced?.Describe(),
                part => progress(ReadingPart * part),
                cancellation),
            isCut: false,
            cancellation).ConfigureAwait(false);
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

    private void Tell(StoredPoint made, BackupRequest wish, IReadOnlyList<string> left)
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
