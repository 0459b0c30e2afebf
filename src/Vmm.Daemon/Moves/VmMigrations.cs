using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Cpu;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>
/// Moves a VM to another host, from the side that has it: <see cref="MigrationSteps"/>. Up to the record that the other host is about to be
/// asked (<see cref="MoveStep.Asking"/>) whatever fails leaves the VM here; from there on only the other host's answer says where it is.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows what is plugged.</param>
/// <param name="offers">Describes the VM.</param>
internal sealed class VmMigrations(VmSupervisor vm, VmDevices devices, MigrationOffers offers)
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(30), s_farewell = TimeSpan.FromSeconds(10);

    private MigrationPeers _peers = new(null);
    private Func<string, string, Task> _leave = (_, _) => Task.CompletedTask;
    private CancellationToken _ending;
    private volatile TaskCompletionSource<MigrationInfo> _decided = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Tells it where other hosts are, and who takes a VM that left out of the inventory.</summary>
    /// <param name="peers">The others.</param>
    /// <param name="owned">Files that vmmd made for a VM.</param>
    /// <param name="processor">What KVM of this host can show to guests.</param>
    /// <param name="leave">Takes it out; with the kind of event, and its message.</param>
    /// <param name="ending">This daemon ends: the next one goes on.</param>
    internal void Connect(
        MigrationPeers peers,
        Func<string, IReadOnlyList<string>> owned,
        Func<CpuDescription?> processor,
        Func<string, string, Task> leave,
        CancellationToken ending)
    {
        (offers.Owned, offers.Processor) = (owned, processor);
        (_peers, _leave, _ending) = (peers, leave, ending);
    }

    /// <summary>
    /// Moves it. When this throws, the VM runs, or is paused, as before, unless it ended, or this daemon ended while the other host was
    /// being asked.
    /// </summary>
    /// <param name="to">The other vmmd.</param>
    /// <param name="wish">How.</param>
    /// <param name="report">Hears how far it is.</param>
    /// <param name="cancellation">Gives up, unless the other host has it already.</param>
    /// <exception cref="ApiException">It cannot be moved.</exception>
    internal Task MigrateAsync(string to, MoveWish wish, Action<MoveProgress> report, CancellationToken cancellation) =>
        vm.Operations.RunAsync(VmOperation.Migrate, vm.Name, () => MigrateInTurnAsync(to, wish, report, cancellation), cancellation);

    /// <summary>
    /// A person says where the VM is, since the other host, which may have been asked to take it, answers no more.
    /// </summary>
    /// <param name="isHere">What they say.</param>
    /// <exception cref="ApiException">Nothing waits for such a word.</exception>
    internal void Decide(bool isHere)
    {
        if (vm.Store.Record.Move is not { IsUnsettled: true } move
            || !_decided.TrySetResult(new MigrationInfo(
                move.Id, isHere ? MigrationState.Aborted : MigrationState.Committed, "somebody decided it by hand")))
        {
            throw new ApiException(409, "move-settled", "nothing has to be decided",
                $"{vm.Name} does not wait for another host's word: 'vmmctl vm show {vm.Name}' says how it is");
        }

        string answer = isHere ? "stays here" : "is there";
        vm.Events.Publish(
            "migration", vm.Name, message: $"was handed over to {move.Peer}, which does not answer: somebody decided that it {answer}");
        DaemonLog.MigrationDecided(vm.Log, vm.Name, move.Peer!, answer);
    }

    /// <summary>Goes on with what an earlier daemon was at.</summary>
    /// <param name="worker">The worker that has the VM.</param>
    /// <param name="cancellation">This daemon ends.</param>
    /// <returns>False: the VM is another host's.</returns>
    internal async Task<bool> SettleAdoptedAsync(IWorker worker, CancellationToken cancellation)
    {
        if (vm.Store.Record.Move is not { Kind: MoveKind.Outgoing } move)
        {
            return true;
        }

        if (MigrationSteps.Found(move) == OutgoingStep.Asking)
        {
            vm.MoveIfPossible(VmEvent.Move);
            MigrationInfo said = await AskAsync(move, null, cancellation, CancellationToken.None).ConfigureAwait(false);
            if (said.State == MigrationState.Committed)
            {
                await GoneAsync(worker, move).ConfigureAwait(false);
                return false;
            }
        }

        await BackAsync(worker, move).ConfigureAwait(false);
        return true;
    }

    /// <summary>The VM has no worker any more; what an earlier daemon was at goes on beside all else.</summary>
    internal void SettleLost(CancellationToken ending)
    {
        if (vm.Store.Record.Move is not { Kind: MoveKind.Outgoing } move)
        {
            return;
        }

        if (MigrationSteps.Found(move) != OutgoingStep.Asking)
        {
            Forget();
            return;
        }

        _ = Task.Run(() => vm.Operations.RunAsync(VmOperation.Migrate, vm.Name, async () =>
        {
            MigrationInfo said = await AskAsync(move, null, ending, CancellationToken.None).ConfigureAwait(false);
            if (said.State == MigrationState.Committed)
            {
                await _leave("migrated", $"is on {move.Peer}").ConfigureAwait(false);
            }
            else
            {
                Forget();
            }
        }, ending), CancellationToken.None);
    }

    private async Task MigrateInTurnAsync(string to, MoveWish wish, Action<MoveProgress> report, CancellationToken cancellation)
    {
        VmDiskCopies.ThrowIfCopying(vm);
        vm.Store.RequireSettled();
        IWorker source = vm.RequireWorkerFor(VmEvent.Move);
        using IMigrationPeer peer = _peers.Find(to);
        VmSpec spec = await devices.CurrentSpecAsync(source, cancellation).ConfigureAwait(false);
        MoveRecord move = MoveRecord.Begin(MoveKind.Outgoing, vm.Snapshot.State == VmState.Paused) with { Peer = to };
        MigrationOffer offer = await Task.Run(() => offers.Make(move.Id, spec, wish), cancellation).ConfigureAwait(false);
        OutgoingStep step = OutgoingStep.Offered;
        MoveProgress? last = null;
        try
        {
            Write(move);
            vm.BeginFor(VmEvent.Move);
            PreCopy copy = new(vm.Name, source.Moves, wish, progress => report(last = progress));
            await HandOverAsync(source, peer, offer, wish, copy, taken => step = MigrationSteps.Next(step, taken), cancellation)
                .ConfigureAwait(false);
            RequireThere(source);
            BeginAsking(move);
            step = MigrationSteps.Next(step, OutgoingEvent.Written);
        }
        catch (Exception cause) when (cause is WorkerException or PeerException or KernelException or SqliteException or TimeoutException)
        {
            throw Refusal(cause);
        }
        finally
        {
            if (step != OutgoingStep.Asking)
            {
                step = MigrationSteps.Next(step, OutgoingEvent.Failed);
                await BackAsync(source, move).ConfigureAwait(false);
            }
        }

        report((last ?? PreCopy.Progress(new(MoveStage.HandedOver, 1, 0, 0, 0, 0, 0, 0, 0))) with { Stage = "asking" });
        // A stop that came before the record: the VM must end, and so must not be taken. One that comes later is refused.
        bool isThere = IsThere(source);
        MigrationInfo said = await AskAsync(
            move, peer, _ending, isThere ? cancellation : new CancellationToken(canceled: true)).ConfigureAwait(false);
        bool isGone = said.State == MigrationState.Committed;
        step = MigrationSteps.Next(step, isGone ? OutgoingEvent.SaidCommitted : OutgoingEvent.SaidAborted);
        if (step == OutgoingStep.Gone)
        {
            DaemonLog.Migrated(vm.Log, vm.Name, to, last?.DowntimeMilliseconds ?? 0);
            report((last ?? PreCopy.Progress(new(MoveStage.HandedOver, 1, 0, 0, 0, 0, 0, 0, 0))) with { Stage = "handed-over" });
            await GoneAsync(source, move).ConfigureAwait(false);
            return;
        }

        await BackAsync(source, move).ConfigureAwait(false);
        cancellation.ThrowIfCancellationRequested();
        throw new ApiException(502, "move-failed", "the VM could not be moved",
            isThere
                ? $"{vm.Name}: {to} did not take it: {said.Problem ?? "it does not say why"}; it runs on here"
                : $"{vm.Name} has ended, or is being stopped");
    }

    /// <summary>Up to where the VM stands still here, and all of it is there.</summary>
    private async Task HandOverAsync(
        IWorker source, IMigrationPeer peer, MigrationOffer offer, MoveWish wish, PreCopy copy, Action<OutgoingEvent> happens,
        CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(wish.Timeout + wish.LongestStop);
        try
        {
            MigrationInfo taken = await peer.OfferAsync(offer, deadline.Token).ConfigureAwait(false);
            RequireReceiving(taken);
            happens(OutgoingEvent.Accepted);
            using OutgoingChannels channels = new(wish.Channels);
            await channels.ConnectAsync(peer, offer.Id, deadline.Token).ConfigureAwait(false);
            await source.Moves.BeginAsync(wish.Body, channels.Workers, deadline.Token).ConfigureAwait(false);
            channels.LetGo();
            PeerWatch watch = new(peer, offer.Id);
            await copy.ConvergeAsync(watch.LookAsync, deadline.Token).ConfigureAwait(false);
            await copy.StopAsync(deadline.Token).ConfigureAwait(false);
            happens(OutgoingEvent.Rested);
            deadline.Token.ThrowIfCancellationRequested();
        }
        catch (OperationCanceledException cause) when (!cancellation.IsCancellationRequested)
        {
            throw new TimeoutException(
                $"it took longer than {(wish.Timeout + wish.LongestStop).TotalSeconds:0} s, its time with that of the last part", cause);
        }
    }

    internal static void RequireReceiving(MigrationInfo info)
    {
        if (info.State != MigrationState.Receiving)
        {
            throw new PeerException("move-failed", $"the other host gave it up: {info.Problem ?? "it does not say why"}");
        }
    }

    /// <summary>It still stands still in its worker, and nobody has pulled its plug: only then may the other host be asked.</summary>
    private void RequireThere(IWorker source)
    {
        if (!IsThere(source))
        {
            throw new WorkerException(ControlCodes.WrongState, $"{vm.Name} has ended, or is being stopped");
        }
    }

    private bool IsThere(IWorker source)
    {
        (VmState state, IWorker? worker, _, _) = vm.Snapshot;
        return state == VmState.Migrating && ReferenceEquals(worker, source) && !source.Ended.IsCompleted;
    }

    /// <summary>
    /// Asks until the other host says what is decided, or a person does: nothing else ends this but the daemon's own end.
    /// </summary>
    private async Task<MigrationInfo> AskAsync(
        MoveRecord move, IMigrationPeer? connected, CancellationToken ending, CancellationToken giveUp)
    {
        using CancellationTokenSource over = CancellationTokenSource.CreateLinkedTokenSource(ending);
        Task<MigrationInfo> asking = AskPeerAsync(move, connected, over.Token, giveUp), decided = _decided.Task;
        Task<MigrationInfo> first = await Task.WhenAny(asking, decided).ConfigureAwait(false);
        await over.CancelAsync().ConfigureAwait(false);
        await ((Task)asking).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        MigrationInfo said = await first.ConfigureAwait(false);
        if (ReferenceEquals(first, decided) && said.State == MigrationState.Aborted)
        {
            // Should it answer now of all times, its word is the one that counts.
            return await SayFarewellAsync(move).ConfigureAwait(false) ?? said;
        }

        return said;
    }

    private async Task<MigrationInfo> AskPeerAsync(
        MoveRecord move, IMigrationPeer? connected, CancellationToken over, CancellationToken giveUp)
    {
        int delay = 50;
        for (string? told = null; ;)
        {
            over.ThrowIfCancellationRequested();
            try
            {
                using IMigrationPeer? fresh = connected is null ? _peers.Find(move.Peer!) : null;
                IMigrationPeer peer = connected ?? fresh!;
                connected = null; // the next question is by a new connection
                MigrationInfo said = await (giveUp.IsCancellationRequested
                    ? peer.AbortAsync(move.Id, over)
                    : peer.CommitAsync(move.Id, over)).ConfigureAwait(false);
                if (said.State is MigrationState.Committed or MigrationState.Aborted)
                {
                    return said;
                }
            }
            catch (Exception cause) when (cause is PeerException or ApiException)
            {
                if (!string.Equals(told, cause.Message, StringComparison.Ordinal))
                {
                    told = cause.Message;
                    DaemonLog.MigrationUnsettled(vm.Log, vm.Name, move.Peer!, told);
                    vm.Events.Publish("migration", vm.Name, message: $"stands still until {move.Peer} says whether it has it: {told}");
                }
            }

            await Task.Delay(delay, over).ConfigureAwait(false);
            delay = Math.Min(delay * 2, 5000);
        }
    }

    /// <summary>The other host has it: here it only has to end.</summary>
    private async Task GoneAsync(IWorker source, MoveRecord move)
    {
        vm.MoveIfPossible(VmEvent.Stop); // its end is not one of the VM: nothing starts it again
        using CancellationTokenSource deadline = new(s_end);
        try
        {
            await source.StopAsync(deadline.Token).ConfigureAwait(false);
            await source.Ended.WaitAsync(deadline.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            DaemonLog.WorkerLeft(vm.Log, vm.Name, source.ProcessId, cause.Message); // at rest; nobody's for the next daemon, which ends it
        }

        await _leave("migrated", $"is on {move.Peer}").ConfigureAwait(false);
    }

    /// <summary>It stays here.</summary>
    private async Task BackAsync(IWorker source, MoveRecord move)
    {
        _ = await SayFarewellAsync(move).ConfigureAwait(false);
        await offers.CancelAsync(source).ConfigureAwait(false);
        vm.Handover.Settle(source);
        Forget();
    }

    // The other host finds out by itself, too: this is quicker.
    private async Task<MigrationInfo?> SayFarewellAsync(MoveRecord move)
    {
        using CancellationTokenSource soon = new(s_farewell);
        try
        {
            using IMigrationPeer peer = _peers.Find(move.Peer!);
            return await peer.AbortAsync(move.Id, soon.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is PeerException or ApiException or OperationCanceledException)
        {
            DaemonLog.FarewellUnheard(vm.Log, vm.Name, move.Peer!, cause.Message);
            return null;
        }
    }

    private void Forget()
    {
        vm.Store.Change(record => record with { Move = null });
        vm.Store.CommitOrLog();
    }

    private ApiException Refusal(Exception cause) => cause switch
    {
        WorkerException refused => WorkerCalls.ToApi(refused),
        PeerException peer => new ApiException(409, peer.Code, "the other host does not take the VM",
            $"{vm.Name}: {peer.Message}; it runs on here", inner: cause),
        _ => new ApiException(
            500, "move-failed", "the VM could not be moved", $"{vm.Name}: {cause.Message}; it runs on here", inner: cause),
    };

    private void BeginAsking(MoveRecord move)
    {
        _decided = new TaskCompletionSource<MigrationInfo>(TaskCreationOptions.RunContinuationsAsynchronously);
        Write(move with { Step = MoveStep.Asking });
    }

    private void Write(MoveRecord move)
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
