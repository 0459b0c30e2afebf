using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Change logs of a VM's disks: the file of each is there from when it was wanted until it is not, across starts and across daemons. Its
/// worker gets the descriptor before the guest runs. Where a log may have missed a write it says that it does not know
/// (<see cref="ChangeUnknown"/>); it is never silently wrong. Files are named by the disk's name in a run; a name that is another disk's at
/// the next start is noticed by the file that is behind it.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="storage">Where they may be.</param>
/// <param name="folder">Where the logs are; null: there are none.</param>
internal sealed class VmChangeLogs(VmSupervisor vm, VmDevices devices, StorageFolders storage, Func<string?> folder)
    : IRunObserver, IDisposable
{
    private readonly Lock _gate = new(); // calls of the files, which are short
    private readonly ChangeLogFolder _files = new(folder, problem => DaemonLog.ChangeLogFailed(vm.Log, vm.Name, problem));
    private readonly Dictionary<string, ulong?> _cuts = new(StringComparer.Ordinal); // before the last one, of those that it was for
    private readonly HashSet<string> _uncut = new(StringComparer.Ordinal); // the last cut did not come about
    private Dictionary<string, string> _ended = []; // files of the disks of the run that ended

    /// <summary>The host's boot; tests have others.</summary>
    internal Func<HostBoot> Boot { get; set; } = () => HostBoot.Now;

    /// <summary>Disks that have logs.</summary>
    internal IReadOnlyList<string> Disks => _files.Names;

    /// <inheritdoc/>
    public void RunBegan(IWorker worker)
    {
        // Whoever starts it begins its logs before the guest runs.
    }

    /// <inheritdoc/>
    public void RunEnded() => _ended = devices.Disks().ToDictionary(each => each.Disk, each => each.Spec.Path, StringComparer.Ordinal);

    /// <summary>
    /// Sets which disks have logs from now on: those of a running VM begin at once, with everything taken for written; logs of others end.
    /// </summary>
    /// <param name="disks">Names of disks.</param>
    /// <param name="cancellation">Ends the waiting for a turn.</param>
    /// <exception cref="ApiException">A disk is missing or can have no log, or the worker refuses it: the others have theirs.</exception>
    internal Task WantAsync(IReadOnlyList<string> disks, CancellationToken cancellation) => vm.Operations.RunAsync(
        VmOperation.LogChanges, vm.Name, () => WantInTurnAsync(disks), cancellation);

    /// <summary>
    /// Before the guest runs: the worker gets the logs. One that cannot be begun is unknown, and the VM starts all the same.
    /// </summary>
    /// <param name="worker">The worker, whose VM is built.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal Task BeginAsync(IWorker worker, CancellationToken cancellation) => BeginAllAsync(worker, isAdopted: false, cancellation);

    /// <summary>A worker of an earlier daemon has the VM: it has the logs that are open, too.</summary>
    internal Task LearnAsync(IWorker worker, CancellationToken cancellation) => BeginAllAsync(worker, isAdopted: true, cancellation);

    /// <summary>
    /// The VM is about to go over to another worker, which has no logs until <see cref="FollowAsync"/>: what it writes until then is not
    /// known.
    /// </summary>
    /// <exception cref="ApiException">That cannot be written.</exception>
    internal void Leave()
    {
        try
        {
            foreach (string disk in Disks)
            {
                lock (_gate)
                {
                    Open(disk)?.MarkUnknown(ChangeUnknown.Moved);
                }
            }
        }
        catch (BlockException cause)
        {
            throw new ApiException(500, "move-failed", "the VM could not be moved", $"{vm.Name}: {cause.Message}", inner: cause);
        }
    }

    /// <summary>The VM is in another worker of this host, which goes on with the logs.</summary>
    internal async Task FollowAsync(IWorker next, CancellationToken cancellation)
    {
        foreach (string disk in Disks)
        {
            try
            {
                if (Open(disk) is { } file)
                {
                    await next.LogChangesAsync(disk, file.Descriptor, cancellation).ConfigureAwait(false);
                }
            }
            catch (WorkerException cause)
            {
                GiveUp(disk, cause.Message);
            }
        }
    }

    /// <summary>The run is over, and its worker is gone.</summary>
    internal void End()
    {
        foreach (string disk in Disks)
        {
            try
            {
                lock (_gate)
                {
                    if (Open(disk) is { IsOpen: true } file)
                    {
                        file.End(_ended.GetValueOrDefault(disk) is { } path ? BlockFile.Stamp(path) : null);
                    }
                }
            }
            catch (BlockException cause)
            {
                Tell(disk, cause.Message); // it stays open: the next start does not know
            }
        }
    }

    /// <summary>A disk gets that large, or has: its log has room for that.</summary>
    internal void Grow(string disk, ulong bytes)
    {
        try
        {
            lock (_gate)
            {
                Open(disk)?.Grow(bytes);
            }
        }
        catch (BlockException cause)
        {
            Tell(disk, cause.Message); // the worker notices, and says so
        }
    }

    /// <summary>In turn, before the worker is asked for a cut of these disks: <see cref="Check"/> sees whether it made one.</summary>
    internal void Expect(IEnumerable<string> disks)
    {
        lock (_gate)
        {
            _cuts.Clear();
            foreach (string disk in disks.Where(disk => Open(disk) is not null))
            {
                _cuts[disk] = CutsOf(disk);
            }
        }
    }

    /// <summary>In turn, when the worker says that it went over to the snapshot.</summary>
    internal void Check()
    {
        lock (_gate)
        {
            foreach ((string disk, ulong? before) in _cuts)
            {
                bool isCut = before is not null && CutsOf(disk) is { } now && now != before;
                _ = isCut ? _uncut.Remove(disk) : _uncut.Add(disk);
            }

            _cuts.Clear();
        }
    }

    /// <summary>
    /// In turn, for a VM that is off: what was written to these disks until now is pending; one that was changed meanwhile is unknown.
    /// </summary>
    /// <exception cref="ApiException">A log cannot be written.</exception>
    internal void CutAtRest(IEnumerable<(string Name, DiskSpec Disk)> disks)
    {
        try
        {
            lock (_gate)
            {
                foreach ((string name, DiskSpec disk) in disks.Where(each => Disks.Contains(each.Name, StringComparer.Ordinal)))
                {
                    ChangeLogFile file = OpenOrMake(name, disk);
                    Begin(file, name, disk);
                    file.End(BlockFile.Stamp(disk.Path));
                    file.Cut();
                    _uncut.Remove(name);
                }
            }
        }
        catch (Exception cause) when (cause is BlockException or IOException)
        {
            throw Failed(cause);
        }
    }

    /// <summary>In turn, for a VM that is off: its disks are in other files, which nobody has written.</summary>
    internal void MoveAtRest(IEnumerable<(string Name, string File)> disks)
    {
        lock (_gate)
        {
            foreach ((string name, string path) in disks)
            {
                try
                {
                    if (Open(name) is { IsOpen: false } file)
                    {
                        file.End(BlockFile.Stamp(path));
                    }
                }
                catch (BlockException cause)
                {
                    Tell(name, cause.Message); // it has the stamp of the file before: the next start does not know
                }
            }
        }
    }

    /// <summary>What was written to a disk before its last cut, since what was acknowledged.</summary>
    /// <param name="disk">Its name.</param>
    /// <returns>Null: it has no log.</returns>
    internal ChangeSet? ReadPending(string disk)
    {
        lock (_gate)
        {
            ChangeLogFile? file = Open(disk);
            return file is not null && _uncut.Contains(disk) ? file.Everything(ChangeUnknown.Stopped) : file?.ReadPending();
        }
    }

    /// <summary>What was pending of a disk is safe elsewhere.</summary>
    /// <exception cref="ApiException">That cannot be written: it comes again.</exception>
    internal void Forget(string disk)
    {
        try
        {
            lock (_gate)
            {
                Open(disk)?.Forget();
            }
        }
        catch (BlockException cause)
        {
            throw Failed(cause);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _files.Dispose();

    private async Task BeginAllAsync(IWorker worker, bool isAdopted, CancellationToken cancellation)
    {
        foreach (string disk in Disks)
        {
            try
            {
                if (!isAdopted || Open(disk) is not { IsOpen: true })
                {
                    await BeginAsync(worker, disk, cancellation).ConfigureAwait(false);
                }
            }
            catch (Exception cause) when (cause is ApiException or WorkerException or BlockException or IOException)
            {
                GiveUp(disk, cause.Message);
            }
        }
    }

    private async Task WantInTurnAsync(IReadOnlyList<string> disks)
    {
        if (folder() is not { } place)
        {
            throw new ApiException(409, "disk-refused", "the disk can have no change log", $"{vm.Name}: this vmmd keeps no files for VMs");
        }

        IWorker? worker = vm.RequireWorkerForDevices();
        foreach (string disk in Disks.Except(disks, StringComparer.Ordinal))
        {
            if (worker is not null)
            {
                await WorkerCalls.CallAsync(() => worker.StopLogAsync(disk, CancellationToken.None)).ConfigureAwait(false);
            }

            Drop(disk);
        }

        foreach (string disk in disks.Except(Disks, StringComparer.Ordinal))
        {
            DiskSpec spec = devices.DiskOf(disk, running: worker is not null);
            Directory.CreateDirectory(place, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            try
            {
                lock (_gate)
                {
                    _ = OpenOrMake(disk, spec);
                }

                if (worker is not null)
                {
                    await WorkerCalls.CallAsync(() => BeginAsync(worker, disk, CancellationToken.None)).ConfigureAwait(false);
                }
            }
            catch (Exception cause)
            {
                Drop(disk);
                throw cause is BlockException or IOException ? Failed(cause) : cause;
            }
        }
    }

    private async Task BeginAsync(IWorker worker, string disk, CancellationToken cancellation)
    {
        DiskSpec spec = devices.DiskOf(disk, running: true);
        ChangeLogFile file;
        lock (_gate)
        {
            file = OpenOrMake(disk, spec);
            Begin(file, disk, spec);
        }

        await worker.LogChangesAsync(disk, file.Descriptor, cancellation).ConfigureAwait(false);
    }

    private void Drop(string disk)
    {
        lock (_gate)
        {
            _files.Remove(disk);
            _uncut.Remove(disk);
        }
    }

    // Null: it cannot be read.
    private ulong? CutsOf(string disk)
    {
        try
        {
            return Open(disk)?.Cuts;
        }
        catch (BlockException cause)
        {
            Tell(disk, cause.Message);
            return null;
        }
    }

    private void Tell(string disk, string problem) => DaemonLog.ChangeLogFailed(vm.Log, vm.Name, $"{disk}: {problem}");

    private void Begin(ChangeLogFile file, string name, DiskSpec disk)
    {
        HostBoot boot = Boot();
        ChangeUnknown reason = file.Begin(boot.Id, boot.Begin, BlockFile.Stamp(disk.Path), BytesOf(name, disk));
        if (reason != ChangeUnknown.None)
        {
            DaemonLog.ChangesUnknown(vm.Log, vm.Name, name, reason.Describe());
        }
    }

    // The guest runs without it: a cut does not come about, and that is noticed; a start that finds it open or changed knows nothing.
    private void GiveUp(string disk, string why)
    {
        Tell(disk, why);
        try
        {
            lock (_gate)
            {
                Open(disk)?.MarkUnknown(ChangeUnknown.Stopped);
            }
        }
        catch (BlockException cause)
        {
            Tell(disk, cause.Message);
        }
    }

    private ChangeLogFile OpenOrMake(string name, DiskSpec disk) => _files.OpenOrMake(name, () => BytesOf(name, disk));

    private ChangeLogFile? Open(string disk) => _files.TryOpen(disk, out _);

    private ulong BytesOf(string name, DiskSpec disk) => disk.IsRemote
        ? throw new ApiException(422, "disk-refused", "the disk can have no change log",
            $"{vm.Name}: {name} is a server's: a change log is for files and devices of this host")
        : DiskFacts.Read(vm.Name, name, disk, storage).Bytes;

    private ApiException Failed(Exception cause) => new(
        500, "disk-refused", "the change log cannot be written", $"{vm.Name}: {cause.Message}", inner: cause);
}
