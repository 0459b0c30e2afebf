using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>The replication of one VM to another site: cuts and sends until it is ended, and does what its operators ask for.</summary>
internal sealed class VmReplication : IAsyncDisposable
{
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(200), s_longestVerify = TimeSpan.FromMinutes(10),
        s_farewell = TimeSpan.FromSeconds(10);

    private readonly ManagedVm _vm;
    private readonly ReplicaParts _parts;
    private readonly ReplicaLedger _ledger;
    private readonly ReplicaCutter _cutter;
    private readonly ReplicaSendLoop _sender;
    private readonly IChangeSource _changes;
    private readonly CancellationTokenSource _stop = new();
    private Task _work = Task.CompletedTask;

    /// <param name="vm">The VM.</param>
    /// <param name="settings">As the inventory has them.</param>
    /// <param name="parts">What all use.</param>
    /// <param name="changes">Tells what the VM writes.</param>
    internal VmReplication(ManagedVm vm, ReplicaSettings settings, ReplicaParts parts, IChangeSource changes)
    {
        (_vm, _parts, _changes) = (vm, parts, changes);
        ReplicaState first = settings.Suspension is not null ? ReplicaState.Suspended
            : settings.Resync is not null ? ReplicaState.Resyncing
            : settings.Newest.Length == 0 ? ReplicaState.Seeding
            : ReplicaState.Behind;
        Status = new ReplicaStatus(vm.Record.Name, first, parts.Events, parts.Log, parts.Time);
        if (settings.NewestTime is { } newest)
        {
            Status.Found(newest);
        }

        _ledger = new ReplicaLedger(vm.Record.Id, vm.Record.Name, settings, parts, Status);
        _cutter = new ReplicaCutter(_ledger, vm.Cuts, changes);
        _sender = new ReplicaSendLoop(_ledger, vm.Cuts);
    }

    /// <summary>Where it stands.</summary>
    internal ReplicaStatus Status { get; }

    /// <summary>What is wanted, and how far both sites are.</summary>
    internal ReplicaSettings Settings => _ledger.Settings;

    /// <summary>As it is told.</summary>
    internal ReplicaInfo Info
    {
        get
        {
            IReadOnlyList<string> disks = Settings.Disks
                ?? [.. (_vm.Spec?.Disks ?? []).Select((disk, i) => (Disk: disk, Name: FormattableString.Invariant($"disk{i}")))
                    .Where(each => !each.Disk.ReadOnly && !each.Disk.IsRemote).Select(each => each.Name)];
            return Status.Tell(Settings, disks, _ledger.SpooledBytes, _ledger.SpooledBytes);
        }
    }

    /// <summary>Points that wait here.</summary>
    internal int SpooledPoints => _ledger.SpooledPoints;

    /// <summary>Begins.</summary>
    internal void Start() => _work = Task.WhenAll(
        Task.Run(() => _cutter.RunAsync(_stop.Token)), Task.Run(() => _sender.RunAsync(_stop.Token)));

    /// <summary>Other wishes of the operator.</summary>
    internal void Change(Func<ReplicaSettings, ReplicaSettings> change)
    {
        _ledger.Change(change);
        _vm.Cuts.Reopen(); // other disks, say
        _sender.Renew();
        _ledger.Cut.Set();
        _ledger.Send.Set();
    }

    /// <summary>Lets it wait.</summary>
    internal void Pause(ReplicaSuspension suspension)
    {
        _ledger.Change(each => each with { Suspension = suspension });
        Status.Apply(ReplicaChange.Suspended, $"held by {suspension.Owner} until {suspension.Until:u}: {suspension.Reason}");
        _ledger.Send.Set();
    }

    /// <summary>Lets it go on.</summary>
    internal void Resume(string who) => _ledger.Resume($"{who} lets it go on");

    /// <summary>Cuts now, and waits until the point is safe.</summary>
    /// <exception cref="ApiException">It cannot be now.</exception>
    internal async Task SyncAsync(Action<double> progress, CancellationToken cancellation)
    {
        SpooledPoint? made = await _cutter.CutAsync(cancellation).ConfigureAwait(false);
        progress(0.5);
        await SafeAsync(made?.Point.Id ?? _ledger.LastCut, cancellation).ConfigureAwait(false);
    }

    /// <summary>Compares hashes of all disks, and sends what differs. A fence is no obstacle: a person has decided.</summary>
    /// <exception cref="ApiException">The other site has failed over, or it cannot be now.</exception>
    internal async Task ResyncAsync(string who, Action<double> progress, CancellationToken cancellation)
    {
        if (_ledger.Held() is { } held)
        {
            throw ReplicaProblem.Held(_ledger.Name, held);
        }

        ReplicaSiteInfo? site = await AskAsync(peer => peer.FindAsync(_ledger.Id, cancellation)).ConfigureAwait(false);
        if (site is { State: not ReplicaSiteState.Receiving })
        {
            throw ReplicaProblem.Fenced(_ledger.Name, Fence.Of(Settings.Generations, site)!);
        }

        ReplicaGenerations own = Settings.Generations;
        _ledger.Change(each => each with
        {
            Resync = $"{who} asked for it",
            Generations = site is null ? own : Fence.Over(own, site.Generations),
        });
        Status.Apply(ReplicaChange.Released, $"{who} asked for a resync");
        _ledger.Send.Set();
        while (Settings.Resync is not null || _ledger.LastCut == Guid.Empty)
        {
            RequireSending();
            await Task.Delay(s_poll, _parts.Time, cancellation).ConfigureAwait(false);
        }

        progress(0.5);
        await SafeAsync(_ledger.LastCut, cancellation).ConfigureAwait(false);
    }

    /// <summary>Compares the hashes of the newest point of both sites. No cut is made meanwhile; the VM goes on.</summary>
    /// <exception cref="ApiException">They differ, and where; or they cannot be compared now.</exception>
    internal async Task VerifyAsync(Action<double> progress, CancellationToken cancellation)
    {
        long began = _parts.Time.GetTimestamp();
        while (true)
        {
            await _ledger.Cutting.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                if (await TryVerifyAsync(progress, cancellation).ConfigureAwait(false))
                {
                    return;
                }
            }
            catch (BlockException cause)
            {
                throw new ApiException(
                    500, "cut-failed", "the hashes here cannot be read", $"{_ledger.Name}: {cause.Message}", inner: cause);
            }
            finally
            {
                _ledger.Cutting.Release();
            }

            RequireSending();
            if (_parts.Time.GetElapsedTime(began) > s_longestVerify)
            {
                throw new ApiException(409, "replica-waits", "nothing was compared",
                    $"{_ledger.Name}: for {s_longestVerify.TotalMinutes:0} minutes there was no moment at which nothing waited to be sent");
            }

            await Task.Delay(s_poll, _parts.Time, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Stops, and tells the other site that the pairing is over.</summary>
    /// <returns>Why the other site was not told; null: it was.</returns>
    internal async Task<string?> EndAsync()
    {
        await DisposeAsync().ConfigureAwait(false);
        using CancellationTokenSource limit = new(s_farewell);
        try
        {
            await _changes.LeaveAsync(limit.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is ApiException or OperationCanceledException)
        {
            DaemonLog.ReplicaFilesStay(_parts.Log, _ledger.Name, "the change log", cause.Message);
        }

        try
        {
            using IReplicaPeer peer = _parts.Connect(Settings.To);
            await peer.EndAsync(_ledger.Id, limit.Token).ConfigureAwait(false);
            return null;
        }
        catch (PeerException cause) when (cause.Code is PeerWords.NotFound)
        {
            return null;
        }
        catch (Exception cause) when (cause is PeerException or ApiException or OperationCanceledException)
        {
            return cause.Message;
        }
    }

    /// <summary>Stops; what waits is sent by the next one.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        try
        {
            await _work.ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // that is how both halves end
        }
    }

    private async Task<bool> TryVerifyAsync(Action<double> progress, CancellationToken cancellation)
    {
        ReplicaSpool spool = _ledger.RequireSpool();
        if (spool.Points.Count > 0 || Settings.Resync is not null || _ledger.Acknowledged == Guid.Empty)
        {
            return false; // the hashes here are those of a point that is not there yet
        }

        IReadOnlyList<string> differ = await AskAsync(async peer =>
        {
            ReplicaSiteInfo site = await peer.FindAsync(_ledger.Id, cancellation).ConfigureAwait(false)
                ?? throw new PeerException(PeerWords.NotFound, "the recovery site has no replica of it");
            return Guid.TryParse(site.Newest, out Guid newest) && newest == _ledger.Acknowledged
                ? await new PeerTrees(_ledger.Id, peer).CompareAsync(site, spool, progress, cancellation).ConfigureAwait(false)
                : [$"the newest point there is {site.Newest}, and {_ledger.Acknowledged} here"];
        }).ConfigureAwait(false);
        if (differ.Count == 0)
        {
            Status.Say("replica-verified", $"all hashes of point {_ledger.Acknowledged} are the same at both sites");
            return true;
        }

        string what = string.Join("; ", differ);
        _ledger.Change(each => each with { Resync = $"verify found what differs: {what}" });
        _ledger.Send.Set();
        Status.Say("replica-differs", what);
        throw new ApiException(409, "replica-differs", "both sites differ",
            $"{_ledger.Name}: {what}: what differs is looked for and sent now (replica status shows it)");
    }

    private async Task SafeAsync(Guid point, CancellationToken cancellation)
    {
        // Acknowledged means out of the spool: each point goes there first.
        while (_ledger.RequireSpool().Points.Any(each => each.Point.Id == point) || _ledger.Acknowledged == Guid.Empty)
        {
            RequireSending();
            await Task.Delay(s_poll, _parts.Time, cancellation).ConfigureAwait(false);
        }
    }

    /// <exception cref="ApiException">Nothing is sent now.</exception>
    private void RequireSending()
    {
        if (_ledger.Held() is { } held)
        {
            throw ReplicaProblem.Held(_ledger.Name, held);
        }

        ReplicaState state = Status.State;
        if (state is ReplicaState.Fenced or ReplicaState.Disconnected)
        {
            throw state == ReplicaState.Fenced
                ? ReplicaProblem.Fenced(_ledger.Name, _sender.Fenced ?? "the recovery site has another history")
                : new ApiException(502, "peer-unreachable", "the recovery site does not answer", $"{_ledger.Name}: {Status.LastError}");
        }
    }

    private async Task<T> AskAsync<T>(Func<IReplicaPeer, Task<T>> ask)
    {
        try
        {
            using IReplicaPeer peer = _parts.Connect(Settings.To);
            return await ask(peer).ConfigureAwait(false);
        }
        catch (PeerException cause)
        {
            throw ReplicaProblem.OfPeer(_ledger.Name, cause);
        }
    }
}
