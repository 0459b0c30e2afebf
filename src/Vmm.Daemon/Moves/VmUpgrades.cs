using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>
/// Hands a VM over to a new worker of this host: one of a newer release, say. The commit point is the record of the inventory that says so:
/// before it whatever fails leaves the VM in the worker that has it, behind it that one only has to end.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="launcher">Gives it workers.</param>
/// <param name="devices">Knows what is plugged.</param>
/// <param name="logs">Go along.</param>
/// <param name="cpu">Its time on host CPUs.</param>
/// <param name="admitTwice">Throws when there is no memory for a second worker; its answer is kept until there is one again.</param>
internal sealed class VmUpgrades(
    VmSupervisor vm, IWorkerLauncher launcher, VmDevices devices, VmChangeLogs logs, VmCpuTime cpu,
    Func<VmSpec, IDisposable> admitTwice)
{
    private static readonly TimeSpan s_undo = TimeSpan.FromMinutes(2), s_end = TimeSpan.FromSeconds(30);

    private IWorker? _left; // the one before, which could not be ended

    /// <summary>Hands it over. When this throws, the VM runs, or is paused, as before, unless it ended.</summary>
    /// <param name="wish">How.</param>
    /// <param name="report">Hears how far it is.</param>
    /// <param name="cancellation">Gives up, up to the commit point.</param>
    /// <exception cref="ApiException">It cannot be handed over.</exception>
    internal Task UpgradeAsync(MoveWish wish, Action<MoveProgress> report, CancellationToken cancellation) => vm.Operations.RunAsync(
        VmOperation.Upgrade, vm.Name, () => UpgradeInTurnAsync(wish, report, cancellation), cancellation);

    /// <summary>For a start, and another move: the worker before is gone, or that is refused.</summary>
    /// <exception cref="ApiException">It is not.</exception>
    internal void RequireSettled()
    {
        if (vm.Store.Record.Move is not { Kind: MoveKind.Upgrade })
        {
            return;
        }

        if (_left is { Ended.IsCompleted: false } left)
        {
            throw new ApiException(409, "worker-left", "an earlier worker of the VM is still there",
                $"{vm.Name}: its worker before the last upgrade (process {left.ProcessId}) has not ended: end that process first");
        }

        Write(null);
    }

    /// <summary>Finishes or undoes what an earlier daemon was at.</summary>
    /// <param name="worker">The worker that has the VM.</param>
    /// <param name="others">Those that are to be ended.</param>
    /// <param name="cancellation">This daemon ends.</param>
    internal async Task SettleAdoptedAsync(IWorker worker, IReadOnlyList<IWorker> others, CancellationToken cancellation)
    {
        bool isCommitted = vm.Store.Record.Move is { Kind: MoveKind.Upgrade, Step: not MoveStep.Begun };
        bool gone = true;
        foreach (IWorker other in others)
        {
            other.LetGo();
            gone &= await EndAsync(other, cancellation).ConfigureAwait(false);
        }

        if (vm.Store.Record.Move is not { Kind: MoveKind.Upgrade })
        {
            return;
        }

        if (isCommitted)
        {
            if (gone)
            {
                TakeNames(worker);
            }

            return;
        }

        await CancelAsync(worker).ConfigureAwait(false);
        Forget();
    }

    /// <summary>The VM has no worker any more.</summary>
    /// <param name="leaves">One that does not count is being ended: the journal stays until it is gone.</param>
    internal void SettleLost(bool leaves)
    {
        if (!leaves && vm.Store.Record.Move is { Kind: MoveKind.Upgrade })
        {
            Forget();
        }
    }

    /// <summary>Ends workers of an earlier daemon that do not count; none does.</summary>
    internal async Task EndAllAsync(IReadOnlyList<IWorker> others, CancellationToken ending)
    {
        bool gone = true;
        foreach (IWorker other in others)
        {
            _left = other;
            gone &= await EndAsync(other, ending).ConfigureAwait(false);
        }

        if (gone)
        {
            SettleLost(leaves: false);
        }
    }

    private async Task UpgradeInTurnAsync(MoveWish wish, Action<MoveProgress> report, CancellationToken cancellation)
    {
        VmDiskCopies.ThrowIfCopying(vm);
        RequireSettled();
        IWorker source = vm.RequireWorkerFor(VmEvent.Move);
        VmSpec spec = await devices.CurrentSpecAsync(source, cancellation).ConfigureAwait(false);
        bool passes = await PassesAsync(source).ConfigureAwait(false);
        using IDisposable? twice = passes ? null : admitTwice(spec);
        // Written first: a daemon that comes after the death of this one finds two workers, and this says which counts.
        MoveRecord move = MoveRecord.Begin(MoveKind.Upgrade, vm.Snapshot.State == VmState.Paused);
        IWorker? next = null;
        MoveProgress? last = null;
        try
        {
            Write(move);
            logs.Leave();
            vm.BeginFor(VmEvent.Move);
            PreCopy copy = new(vm.Name, source.Moves, wish, progress => report(last = progress));
            next = await HandOverAsync(source, spec, move, wish, passes, copy, cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or KernelException or SqliteException or TimeoutException)
        {
            throw cause is WorkerException refused ? WorkerCalls.ToApi(refused) : new ApiException(
                500, "move-failed", "the VM could not be moved", $"{vm.Name}: {cause.Message}; it runs on in its worker", inner: cause);
        }
        finally
        {
            if (next is null)
            {
                await UndoAsync(source).ConfigureAwait(false);
            }
        }

        await FinishAsync(source, next, move.WasPaused, last?.DowntimeMilliseconds ?? 0).ConfigureAwait(false);
    }

    private static async Task<bool> PassesAsync(IWorker source)
    {
        try
        {
            return await source.Moves.CanPassMemoryAsync().ConfigureAwait(false);
        }
        catch (WorkerException refused)
        {
            throw WorkerCalls.ToApi(refused);
        }
    }

    /// <summary>Up to the commit point. When this throws, no second worker is left.</summary>
    private async Task<IWorker> HandOverAsync(
        IWorker source, VmSpec spec, MoveRecord move, MoveWish wish, bool passes, PreCopy copy, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(wish.Timeout + wish.LongestStop);
        using MoveChannels channels = new(wish.Channels);
        try
        {
            await using IIncomingWorker target = await launcher
                .ReceiveAsync(vm.Store.Record.Id, move.Id, spec, channels.Targets, deadline.Token).ConfigureAwait(false);
            await source.Moves.BeginAsync(
                wish.Body with { PassMemory = passes }, channels.Sources, deadline.Token).ConfigureAwait(false);
            channels.Dispose(); // from here on the end of one worker is noticed by the other
            await copy.ConvergeAsync(token => IncomingStage.RequireAliveAsync(target, token), deadline.Token).ConfigureAwait(false);
            await copy.StopAsync(deadline.Token).ConfigureAwait(false);
            await IncomingStage.RequireCompleteAsync(target, deadline.Token).ConfigureAwait(false);
            IWorker next = await target.CompleteAsync(deadline.Token).ConfigureAwait(false);
            try
            {
                cpu.Carry(source, next);
                deadline.Token.ThrowIfCancellationRequested();
                Commit(source, next, move);
                return next;
            }
            catch
            {
                await EndAsync(next, CancellationToken.None).ConfigureAwait(false);
                throw;
            }
        }
        catch (OperationCanceledException cause) when (!cancellation.IsCancellationRequested)
        {
            throw new TimeoutException(
                $"it took longer than {(wish.Timeout + wish.LongestStop).TotalSeconds:0} s, its time with that of the last part", cause);
        }
    }

    /// <summary>The commit point.</summary>
    private void Commit(IWorker source, IWorker next, MoveRecord move)
    {
        if (!vm.Handover.TryMove(source, next))
        {
            throw new WorkerException(ControlCodes.WrongState, $"{vm.Name} has ended, or is being stopped");
        }

        try
        {
            Write(move with { Step = MoveStep.Committed });
        }
        catch
        {
            vm.Handover.MoveBack(source, next);
            throw;
        }
    }

    /// <summary>Behind the commit point: nothing of this can be given up.</summary>
    private async Task FinishAsync(IWorker source, IWorker next, bool isPaused, double downtime)
    {
        source.LetGo();
        Exception? problem = null;
        try
        {
            if (!isPaused)
            {
                using CancellationTokenSource deadline = new(s_end);
                await next.StartAsync(deadline.Token).ConfigureAwait(false);
            }
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            problem = cause;
        }

        vm.Handover.Settle(next);
        if (problem is not null)
        {
            await EndAsync(next, CancellationToken.None).ConfigureAwait(false); // its end is the VM's
        }

        if (await EndAsync(source, CancellationToken.None).ConfigureAwait(false))
        {
            TakeNames(next);
        }
        else
        {
            _left = source;
        }

        if (problem is not null)
        {
            throw new ApiException(502, "move-failed", "the VM did not go on in its new worker",
                $"{vm.Name}: its new worker had it, and did not start it: {problem.Message}", inner: problem);
        }

        await devices.LearnAsync(next, CancellationToken.None).ConfigureAwait(false);
        await logs.FollowAsync(next, CancellationToken.None).ConfigureAwait(false);
        DaemonLog.Upgraded(vm.Log, vm.Name, source.ProcessId, next.ProcessId, downtime);
        vm.Events.Publish("upgraded", vm.Name, message: FormattableString.Invariant(
            $"is in a new worker (process {next.ProcessId}); it stood still for {downtime:0.0} ms"));
    }

    /// <summary>The worker that has the VM is the only one: it gets the VM's names, and the move is over.</summary>
    private void TakeNames(IWorker worker)
    {
        try
        {
            if (vm.Store.Record.Move is { } move && worker.MoveId is not null && !worker.Ended.IsCompleted)
            {
                Write(move with { Step = MoveStep.SourceGone }); // a worker with the VM's names is not the one before from here on
                worker.TakeNames();
            }

            Write(null);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or SqliteException)
        {
            DaemonLog.NamesNotTaken(vm.Log, vm.Name, cause.Message); // the next daemon tries again
        }
    }

    private async Task UndoAsync(IWorker source)
    {
        await CancelAsync(source).ConfigureAwait(false);
        // As the worker says, also when it did not answer: one that still rests is paused, and can be resumed.
        vm.Handover.Settle(source);
        Forget();
    }

    // There is no second worker, and no names of one.
    private void Forget()
    {
        if (vm.Store.Spec?.Vsock is { } vsock)
        {
            VsockNames.Drop(vsock.Path);
        }

        vm.Store.Change(record => record with { Move = null });
        vm.Store.CommitOrLog();
    }

    private async Task CancelAsync(IWorker worker)
    {
        using CancellationTokenSource deadline = new(s_undo);
        try
        {
            await worker.Moves.CancelAsync(deadline.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            DaemonLog.MoveNotUndone(vm.Log, vm.Name, cause.Message); // it has ended, say
        }
    }

    /// <summary>Ends a worker that does not count; false: it is still there.</summary>
    private async Task<bool> EndAsync(IWorker worker, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(s_end);
        try
        {
            await worker.StopAsync(deadline.Token).ConfigureAwait(false);
            await worker.Ended.WaitAsync(deadline.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            DaemonLog.WorkerLeft(vm.Log, vm.Name, worker.ProcessId, cause.Message);
            return false;
        }

        await worker.DisposeAsync().ConfigureAwait(false);
        return true;
    }

    private void Write(MoveRecord? move)
    {
        MoveRecord? before = vm.Store.Record.Move;
        vm.Store.Change(record => record with { Move = move });
        try
        {
            vm.Store.Commit();
        }
        catch
        {
            vm.Store.Change(record => record with { Move = before });
            throw;
        }
    }
}
