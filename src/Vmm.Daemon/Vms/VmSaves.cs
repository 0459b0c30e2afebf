using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Saves of a VM into a folder. What is written behind each step lets a daemon that comes later know: a folder that is not whole belongs to
/// a VM that runs on, a whole one to a VM whose worker is to end.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows what is plugged.</param>
/// <param name="storage">Where folders may be.</param>
internal sealed class VmSaves(VmSupervisor vm, VmDevices devices, StorageFolders storage)
{
    private const ulong DocumentRoom = 64 << 20;

    private static readonly TimeSpan s_undo = TimeSpan.FromMinutes(2), s_end = TimeSpan.FromSeconds(30),
        s_interval = TimeSpan.FromMilliseconds(250);

    /// <summary>Saves it, and ends its worker. When this throws, it runs, or is paused, as before, unless somebody pulled its
    /// plug.</summary>
    /// <param name="folder">The folder to make, the whole path.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It cannot be saved.</exception>
    internal Task SaveAsync(string folder, Action<double> progress, CancellationToken cancellation) => vm.Operations.RunAsync(
        VmOperation.Save, vm.Name, () => SaveInTurnAsync(folder, progress, cancellation), cancellation);

    /// <summary>Forgets where it is saved; the folder stays.</summary>
    /// <exception cref="ApiException">It is not saved.</exception>
    internal Task DiscardAsync(CancellationToken cancellation) => vm.Operations.RunAsync(VmOperation.DiscardSaved, vm.Name, () =>
    {
        if (vm.Store.Record.Saved is not { IsWhole: true } saved)
        {
            throw vm.WrongState("is not saved: there is nothing to discard");
        }

        vm.Store.Change(record => record with { Saved = null });
        vm.Store.Commit();
        vm.MoveIfPossible(VmEvent.SaveDiscarded);
        vm.Events.Publish("changed", vm.Name, message: $"its state in {saved.Folder} is forgotten; the folder is still there");
        return Task.CompletedTask;
    }, cancellation);

    /// <summary>
    /// Finishes or undoes what an earlier daemon was at: an adopted worker whose VM is whole in a folder is ended, one whose save was cut
    /// off goes on.
    /// </summary>
    /// <returns>False: the worker was ended.</returns>
    internal async Task<bool> SettleAdoptedAsync(IWorker worker, CancellationToken cancellation)
    {
        if (vm.Store.Record.Saved is not { } saved)
        {
            return true;
        }

        if (saved.IsWhole)
        {
            await worker.StopAsync(cancellation).ConfigureAwait(false);
            vm.Ends.End(worker, await worker.Ended.WaitAsync(s_end, cancellation).ConfigureAwait(false));
            return false;
        }

        try
        {
            await worker.UndoSaveAsync(cancellation).ConfigureAwait(false);
        }
        catch (WorkerException cause)
        {
            DaemonLog.SaveNotUndone(vm.Log, vm.Name, cause.Message); // it has ended, say
        }

        ForgetPartial(saved);
        return true;
    }

    /// <summary>A save was cut off, and there is no worker any more: what was written is nothing.</summary>
    internal void SettleLost()
    {
        if (vm.Store.Record.Saved is { IsWhole: false } saved)
        {
            ForgetPartial(saved);
        }
    }

    private async Task SaveInTurnAsync(string path, Action<double> progress, CancellationToken cancellation)
    {
        VmDiskCopies.ThrowIfCopying(vm);
        IWorker plugged = vm.RequireWorkerFor(VmEvent.Save);
        VmSpec spec = await devices.CurrentSpecAsync(plugged, cancellation).ConfigureAwait(false);
        using SavedVmFolder folder = Begin(path, spec);
        bool isSaved = false;
        IWorker? worker = null;
        try
        {
            ulong estimate = await RequireRoomAsync(folder, plugged, cancellation).ConfigureAwait(false);
            // Written first: a daemon that comes after the death of this one removes what is not whole.
            vm.Store.Change(record => record with { Saved = new SavedPlace(folder.Folder, IsWhole: false) });
            vm.Store.Commit();
            worker = vm.BeginFor(VmEvent.Save);
            await WriteAsync(worker, folder, spec, estimate, progress, cancellation).ConfigureAwait(false);
            folder.Commit(SavedVmNote.Of(vm.Store.Record.Id, spec));
            vm.Store.Change(record => record with { Saved = new SavedPlace(folder.Folder, IsWhole: true), WantedOn = false });
            vm.Store.Commit();
            isSaved = true;
        }
        catch (Exception cause) when (cause is WorkerException or IOException or UnauthorizedAccessException)
        {
            throw cause is WorkerException refused ? WorkerCalls.ToApi(refused)
                : new ApiException(
                    507, "save-failed", "the VM could not be saved", $"{vm.Name}: {folder.Folder}: {cause.Message}", inner: cause);
        }
        finally
        {
            if (!isSaved)
            {
                await UndoAsync(worker, folder).ConfigureAwait(false);
            }
        }

        DaemonLog.Saved(vm.Log, vm.Name, folder.Folder);
        await EndAsync(worker).ConfigureAwait(false);
    }

    private SavedVmFolder Begin(string path, VmSpec spec)
    {
        try
        {
            return SavedVmFolder.Begin(storage, path, spec);
        }
        catch (StorageException cause)
        {
            throw new ApiException(422, "folder-refused", "the folder cannot be made", $"{vm.Name}: {cause.Message}", inner: cause);
        }
    }

    /// <summary>Refuses a save for which there is clearly no room; the answer is about how much it will be.</summary>
    private async Task<ulong> RequireRoomAsync(SavedVmFolder folder, IWorker worker, CancellationToken cancellation)
    {
        ulong estimate = (ulong)Math.Max(0, (await worker.GetStatsAsync(cancellation).ConfigureAwait(false)).ResidentBytes);
        ulong free = folder.FreeBytes;
        return free >= estimate + DocumentRoom
            ? Math.Max(1, estimate)
            : throw new ApiException(507, "no-space", "not enough space",
                $"{vm.Name}: to save it takes about {(estimate + DocumentRoom) >> 20} MiB, and the file system of {folder.Folder} has "
                    + $"{free >> 20} MiB left");
    }

    private static async Task WriteAsync(
        IWorker worker, SavedVmFolder folder, VmSpec spec, ulong estimate, Action<double> progress, CancellationToken cancellation)
    {
        ulong largest = Math.Max(SaveTime.LargestVnode(spec), DocumentRoom);
        Task save = worker.SaveAsync(folder.Files, largest, SaveTime.Longest(spec), cancellation);
        while (await Task.WhenAny(save, Task.Delay(s_interval, CancellationToken.None)).ConfigureAwait(false) != save)
        {
            progress(Math.Min(0.99, (double)folder.WrittenBytes / estimate));
        }

        await save.ConfigureAwait(false);
    }

    // A cancelled save was not told to the worker yet, and what it wrote is nothing.
    private async Task UndoAsync(IWorker? worker, SavedVmFolder folder)
    {
        if (worker is not null)
        {
            using CancellationTokenSource deadline = new(s_undo);
            try
            {
                await worker.UndoSaveAsync(deadline.Token).ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
            {
                DaemonLog.SaveNotUndone(vm.Log, vm.Name, cause.Message);
            }

            // As the worker says, also when it did not answer: one that still rests is paused, and can be resumed.
            vm.MoveIfPossible(worker.State == VmState.Paused ? VmEvent.SaveUndonePaused : VmEvent.SaveUndone);
        }

        try
        {
            folder.Discard();
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            DaemonLog.PartialStays(vm.Log, vm.Name, folder.Folder, cause.Message);
        }

        vm.Store.Change(record => record with { Saved = null });
        vm.Store.CommitOrLog();
    }

    private async Task EndAsync(IWorker worker)
    {
        using CancellationTokenSource deadline = new(s_end);
        try
        {
            await worker.StopAsync(deadline.Token).ConfigureAwait(false);
            vm.Ends.End(worker, await worker.Ended.WaitAsync(deadline.Token).ConfigureAwait(false));
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            DaemonLog.WorkerLeft(vm.Log, vm.Name, worker.ProcessId, cause.Message);
        }
    }

    private void ForgetPartial(SavedPlace saved)
    {
        try
        {
            using SavedVmFolder folder = SavedVmFolder.At(storage, saved.Folder);
            folder.DiscardOf(vm.Store.Record.Id);
        }
        catch (Exception cause) when (cause is StorageException or IOException or UnauthorizedAccessException)
        {
            DaemonLog.PartialStays(vm.Log, vm.Name, saved.Folder, cause.Message);
        }

        vm.Store.Change(record => record with { Saved = null });
        vm.Store.CommitOrLog();
    }
}
