using System.Diagnostics;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;

namespace Vmm.Daemon.Moves;

/// <summary>
/// A move from another host, from the side that gets the VM: <see cref="MigrationSteps"/>. It decides: its record in the table of decisions
/// is the commit point, and what is there first stands. What can go wrong before that gives it up, also when the other host is silent.
/// </summary>
/// <param name="offer">What was offered, and looked at.</param>
/// <param name="vm">The VM, which is nobody's to use until this is over.</param>
/// <param name="decisions">Where it is decided.</param>
/// <param name="leave">Takes the VM out of the inventory, when nothing comes of it.</param>
/// <param name="log">The log.</param>
#pragma warning disable CA1001 // Its channels are closed when it is over; the others have no handle.
internal sealed class IncomingMigration(
#pragma warning restore CA1001
    MigrationOffer offer, ManagedVm vm, DecisionTable decisions, Func<ManagedVm, string, Task> leave, ILogger log)
{
    private const int LongestProblem = 300;
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(250), s_channels = TimeSpan.FromSeconds(30),
        s_unasked = TimeSpan.FromSeconds(60), s_build = TimeSpan.FromSeconds(60), s_end = TimeSpan.FromSeconds(20);

    private readonly SemaphoreSlim _gate = new(1, 1); // commit and giving up take turns; not disposed: it has no handle
    private readonly TaskCompletionSource _over = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _cut = new();
    private readonly MoveChannels _channels = new(offer.Channels);
    private readonly Stopwatch _time = Stopwatch.StartNew();
    private readonly HashSet<int> _open = []; // also the lock of channels
    private IIncomingWorker? _incoming;
    private IWorker? _built;
    private volatile MigrationInfo _info = new(offer.Id, MigrationState.Receiving);
    private IncomingStep _step; // under the gate

    /// <summary>Where it stands.</summary>
    internal MigrationInfo Info => _info;

    /// <summary>Takes a worker for it.</summary>
    /// <exception cref="WorkerException">There is none: it is given up.</exception>
    internal async Task BeginAsync(IWorkerLauncher launcher, Spec.VmSpec spec, CancellationToken cancellation)
    {
        vm.Arrival.Hold(_over.Task);
        try
        {
            _incoming = await launcher.ReceiveAsync(offer.Vm, null, spec, _channels.Targets, cancellation).ConfigureAwait(false);
            foreach (FileDescriptorHandle worker in _channels.Targets)
            {
                worker.Dispose(); // the end of the worker is the end of the channels
            }
        }
        catch (Exception cause)
        {
            await GiveUpAsync(cause.Message).ConfigureAwait(false);
            throw;
        }

        _ = WatchAsync();
    }

    /// <summary>Our end of a channel, to be relayed; it is the caller's. Each is given once.</summary>
    /// <exception cref="ApiException">There is none of this number, or it was given.</exception>
    internal FileDescriptorHandle TakeChannel(int number)
    {
        lock (_open)
        {
            return _info.State == MigrationState.Receiving && number >= 0 && number < offer.Channels && _open.Add(number)
                ? new FileDescriptorHandle(_channels.Sources[number].Detach())
                : throw new ApiException(409, "migration-channel", "the channel cannot be opened",
                    $"{offer.Name}: channel {number} of {offer.Channels} is open already, or there is none");
        }
    }

    /// <summary>Cancelled when its channels are to end.</summary>
    internal CancellationToken Cut => _cut.Token;

    /// <summary>The sender asks for the VM to be taken. The answer is what is decided; asked again, it is the same.</summary>
    internal async Task<MigrationInfo> CommitAsync()
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            if (_info.State != MigrationState.Receiving)
            {
                return _info;
            }

            try
            {
                await DecideAsync().ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
            {
                await AbortAsync(cause is WorkerException ? cause.Message : "it took too long to be built").ConfigureAwait(false);
                return _info;
            }

            await TakeAsync().ConfigureAwait(false);
            return _info;
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Gives it up, unless it is decided. The answer is what is decided.</summary>
    internal async Task<MigrationInfo> GiveUpAsync(string why)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            if (_info.State == MigrationState.Receiving)
            {
                await AbortAsync(why).ConfigureAwait(false);
            }

            return _info;
        }
        finally
        {
            _gate.Release();
        }
    }

    // Under the gate. Behind it the VM is this host's.
    private async Task DecideAsync()
    {
        if (_step == IncomingStep.Receiving)
        {
            _step = MigrationSteps.Next(_step, IncomingEvent.Asked);
        }

        if (_built is null)
        {
            using CancellationTokenSource deadline = new(s_build);
            await IncomingStage.RequireCompleteAsync(_incoming!, deadline.Token).ConfigureAwait(false);
            _built = await _incoming!.CompleteAsync(deadline.Token).ConfigureAwait(false);
        }

        // When this throws nobody knows what the disk has: the VM stays built, and the question is answered when it is asked again.
        Decision decision = decisions.Decide(offer.Id, Decision.Committed);
        if (decision != Decision.Committed)
        {
            throw new WorkerException("move-failed", "it was decided otherwise before");
        }

        _step = MigrationSteps.Next(_step, IncomingEvent.Decided);
    }

    // Under the gate. When it is not written it is not decided, and the VM stays as it is until it is.
    private async Task AbortAsync(string why)
    {
        Decision decision = decisions.Decide(offer.Id, Decision.Aborted);
        if (decision == Decision.Committed)
        {
            _step = MigrationSteps.Next(_step, IncomingEvent.Decided); // an earlier write that seemed to have failed
            await TakeAsync().ConfigureAwait(false);
            return;
        }

        _step = MigrationSteps.Next(_step, IncomingEvent.GivenUp);
        // The disks are let go of before the sender hears of it.
        if (_built is not null)
        {
            await EndAsync(_built).ConfigureAwait(false);
        }

        if (_incoming is not null)
        {
            await _incoming.DisposeAsync().ConfigureAwait(false);
        }

        string problem = SafeText.Line(why, LongestProblem);
        DaemonLog.NotArrived(log, offer.Name, offer.Id, problem);
        End(new MigrationInfo(offer.Id, MigrationState.Aborted, problem));
        try
        {
            await leave(vm, problem).ConfigureAwait(false);
        }
        catch (SqliteException cause)
        {
            DaemonLog.Undecided(log, offer.Name, offer.Id, cause.Message); // its record says that it came: the next daemon removes it
        }
    }

    // Under the gate. It is decided: nothing changes that.
    private async Task TakeAsync()
    {
        _info = new MigrationInfo(offer.Id, MigrationState.Committed);
        try
        {
            if (await vm.Arrival.TakeAsync(_built!).ConfigureAwait(false) is { } problem)
            {
                DaemonLog.NotArrived(log, offer.Name, offer.Id, problem);
                await EndAsync(_built!).ConfigureAwait(false); // its end is the VM's, which is this host's
            }
            else
            {
                DaemonLog.Arrived(log, offer.Name, offer.Id);
            }
        }
        finally
        {
            End(_info);
        }
    }

    private void End(MigrationInfo info)
    {
        lock (_open)
        {
            _info = info;
            _channels.Dispose();
        }

        _cut.Cancel();
        _over.TrySetResult();
    }

    private async Task EndAsync(IWorker worker)
    {
        using CancellationTokenSource deadline = new(s_end);
        try
        {
            await worker.StopAsync(deadline.Token).ConfigureAwait(false);
            await worker.Ended.WaitAsync(deadline.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
        {
            DaemonLog.WorkerLeft(log, offer.Name, worker.ProcessId, cause.Message);
        }
    }

    /// <summary>Gives it up when nothing will come of it, or the sender says nothing for long.</summary>
    private async Task WatchAsync()
    {
        for (TimeSpan? complete = null; _info.State == MigrationState.Receiving;)
        {
            await Task.Delay(s_look, CancellationToken.None).ConfigureAwait(false);
            try
            {
                ReceiveInfo now = await _incoming!.StatusAsync(CancellationToken.None).ConfigureAwait(false);
                complete = now.Stage == ReceiveStage.Complete ? complete ?? _time.Elapsed : null;
                string? over = now.Stage == ReceiveStage.Failed ? now.Problem ?? "its worker failed"
                    : Unopened() ? $"not all of its channels came within {s_channels.TotalSeconds:0} s"
                    : complete is { } since && _time.Elapsed - since > s_unasked ? "all of it is here, and the sender says no more"
                    : _time.Elapsed > TimeSpan.FromSeconds(offer.TimeoutSeconds) + s_unasked ? "it took longer than the sender said"
                    : null;
                if (over is not null && _built is null)
                {
                    await GiveUpAsync(over).ConfigureAwait(false);
                }
            }
            catch (WorkerException cause) when (_built is null)
            {
                await TryGiveUpAsync(cause.Message).ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is WorkerException or SqliteException or ObjectDisposedException)
            {
                DaemonLog.Undecided(log, offer.Name, offer.Id, cause.Message);
            }
        }
    }

    private async Task TryGiveUpAsync(string why)
    {
        try
        {
            await GiveUpAsync(why).ConfigureAwait(false);
        }
        catch (SqliteException cause)
        {
            DaemonLog.Undecided(log, offer.Name, offer.Id, cause.Message);
        }
    }

    private bool Unopened()
    {
        lock (_open)
        {
            return _time.Elapsed > s_channels && _open.Count < offer.Channels;
        }
    }
}
