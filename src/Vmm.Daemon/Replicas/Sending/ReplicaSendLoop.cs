using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// Brings the points of the spool to the recovery site. What to do next is decided by what both sites have (<see cref="SendPlan"/>), after
/// every failure anew.
/// </summary>
/// <param name="ledger">What both halves know.</param>
/// <param name="cuts">Makes cuts.</param>
internal sealed class ReplicaSendLoop(ReplicaLedger ledger, VmCuts cuts)
{
    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(30);

    private readonly Backoff _backoff = new();
    private readonly ReplicaSender _sender = new(
        ledger.Id, ledger.Parts.Slots, ledger.Parts.Time, () => ledger.Held() is not null, ledger.Status.Sent);

    private IReplicaPeer? _peer;
    private bool _isPaired;
    private IReadOnlyList<ReplicaDisk> _offered = [];
    private Guid _refused;

    private ReplicaStatus Status => ledger.Status;

    /// <summary>Why nothing may be sent: the other site has another history; null: it has not.</summary>
    internal string? Fenced { get; private set; }

    /// <summary>The pairing is renewed with the next step: what is wanted has changed.</summary>
    internal void Renew() => Volatile.Write(ref _isPaired, false);

    /// <summary>Goes on until it is cancelled.</summary>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        try
        {
            while (true)
            {
                TimeSpan wait = ledger.Held() is { } held
                    ? held.Until - ledger.Parts.Time.GetUtcNow()
                    : await TryStepAsync(cancellation).ConfigureAwait(false);
                await ledger.Send.WaitAsync(wait, ledger.Parts.Time, cancellation).ConfigureAwait(false);
            }
        }
        finally
        {
            _peer?.Dispose();
        }
    }

    /// <returns>How long to wait for the next step, unless something happens.</returns>
    private async Task<TimeSpan> TryStepAsync(CancellationToken cancellation)
    {
        string code, what;
        try
        {
            _peer ??= ledger.Parts.Connect(ledger.Settings.To);
            bool more = await StepAsync(_peer, cancellation).ConfigureAwait(false);
            _backoff.Reset();
            Status.Works(ReplicaWork.Send);
            return more ? TimeSpan.Zero : Look;
        }
        catch (PeerException cause)
        {
            (code, what) = (cause.Code, cause.Message);
            if (cause.Code is "peer-unreachable")
            {
                Status.Apply(ReplicaChange.PeerLost, cause.Message);
            }
        }
        catch (ApiException cause)
        {
            (code, what) = (cause.Problem.Code, cause.Problem.Detail);
        }
        catch (Exception cause) when (cause is BlockException or SqliteException)
        {
            (code, what) = ("spool-failed", cause.Message);
        }
#pragma warning disable CA1031 // The last stop: an error of vmmd is told, and tried again later.
        catch (Exception cause) when (cause is not OperationCanceledException || !cancellation.IsCancellationRequested)
#pragma warning restore CA1031
        {
            DaemonLog.ReplicaFault(ledger.Parts.Log, cause, ledger.Name);
            (code, what) = ("internal", $"an error of vmmd, see its log: {cause.Message}");
        }

        Status.Fail(ReplicaWork.Send, code, what);
        _peer?.Dispose();
        (_peer, _isPaired) = (null, false);
        return _backoff.Next();
    }

    private TimeSpan Look => TimeSpan.FromSeconds(Math.Min(ledger.Settings.IntervalSeconds, s_look.TotalSeconds));

    /// <returns>True: there is more to do at once.</returns>
    private async Task<bool> StepAsync(IReplicaPeer peer, CancellationToken cancellation)
    {
        if (await FindAsync(peer, cancellation).ConfigureAwait(false) is not { } site)
        {
            return false; // fenced
        }

        ReplicaSpool spool = ledger.RequireSpool();
        Guid there = Guid.TryParse(site.Newest, out Guid newest) ? newest : Guid.Empty;
        IReadOnlyList<SpooledPoint> points = spool.Points;
        SendPlan plan = SendPlan.Next(
            [.. points.Select(point => point.Point)], ledger.Acknowledged, there, ledger.HasTrees ? null : ledger.Settings.Resync);
        switch (plan.Step)
        {
            case SendStep.Acknowledge:
                Acknowledge(points.Take(plan.Points));
                return true;
            case SendStep.Send:
                return await SendAsync(peer, points[0], cancellation).ConfigureAwait(false);
            case SendStep.Resync:
                await ResyncAsync(peer, site, plan.Why, cancellation).ConfigureAwait(false);
                return false;
            case SendStep.Full:
                await StartOverAsync(plan.Why, cancellation).ConfigureAwait(false);
                return false;
            default:
                Settle(there);
                return false;
        }
    }

    /// <summary>Asks where the site stands, and pairs with it when that was not done by this connection.</summary>
    /// <returns>Null: it has another history.</returns>
    private async Task<ReplicaSiteInfo?> FindAsync(IReplicaPeer peer, CancellationToken cancellation)
    {
        ReplicaSiteInfo? site = await peer.FindAsync(ledger.Id, cancellation).ConfigureAwait(false);
        bool isPaired = Volatile.Read(ref _isPaired) && string.Equals(
            site?.Generations.Current, ledger.Settings.Generations.Current, StringComparison.OrdinalIgnoreCase);
        if (site is null || (!isPaired && Fence.Of(ledger.Settings.Generations, site) is null))
        {
            site = await PairAsync(peer, cancellation).ConfigureAwait(false);
        }

        Fenced = Fence.Of(ledger.Settings.Generations, site);
        if (Fenced is { } why)
        {
            Status.Apply(ReplicaChange.Fenced, why);
            return null;
        }

        Status.Apply(ReplicaChange.Released, "the recovery site has this history again");
        Status.Apply(ReplicaChange.PeerAnswers, "the recovery site answers");
        return site;
    }

    private async Task<ReplicaSiteInfo> PairAsync(IReplicaPeer peer, CancellationToken cancellation)
    {
        ReplicaSettings settings = ledger.Settings;
        IReadOnlyList<ReplicaDisk> disks = await cuts.DisksAsync(settings.Disks).ConfigureAwait(false);
        ReplicaOffer offer = new(ledger.Id, ledger.Name, ledger.Parts.Source, settings.Generations, disks, settings.Keep);
        ReplicaSiteInfo site = await peer.PairAsync(offer, cancellation).ConfigureAwait(false);
        _offered = disks;
        Volatile.Write(ref _isPaired, true);
        return site;
    }

    private void Acknowledge(IEnumerable<SpooledPoint> points)
    {
        SpooledPoint[] safe = [.. points];
        // Before they go: whatever dies, the other site's newest point is one that is known here.
        SealedPoint newest = safe[^1].Point;
        ledger.Change(each => each with { Newest = newest.Id.ToString("D"), NewestTime = newest.Time });
        bool isFirst = Status.AgeSeconds is null;
        foreach (SpooledPoint point in safe)
        {
            Status.Arrived(point.Point.Time);
            ledger.RequireSpool().Remove(point.Point.Id);
        }

        if (isFirst)
        {
            Status.Say("replica-first-point", $"the first point is safe at {ledger.Settings.To}");
        }

        if (ledger.SpooledPoints + safe.Length >= ReplicaCutter.MostPoints)
        {
            ledger.Cut.Set(); // cuts waited for room
        }

        if (!ledger.IsLate || cuts.IsClosed)
        {
            Status.Apply(ReplicaChange.PointSafe, $"the recovery site has the point of {newest.Time:u}");
        }
    }

    private async Task<bool> SendAsync(IReplicaPeer peer, SpooledPoint point, CancellationToken cancellation)
    {
        // The site hears of a disk before its first point has it.
        if (point.Point.Disks.Any(disk => !_offered.Any(known => string.Equals(known.Name, disk.Name, StringComparison.Ordinal))))
        {
            _ = await PairAsync(peer, cancellation).ConfigureAwait(false);
        }

        try
        {
            ReplicaSiteInfo? site = await _sender.SendAsync(peer, point, ledger.Settings.BytesPerSecond, cancellation)
                .ConfigureAwait(false);
            return site is not null;
        }
        catch (PeerException refusal)
            when (refusal.Code is ReplicaProblem.Refused or PeerWords.Refused or PeerWords.Parent)
        {
            // The second time: what it stands on is not what is thought here, or it was damaged on its way into the spool.
            if (_refused == point.Point.Id)
            {
                ledger.Change(each => each with { Resync = refusal.Message });
            }

            _refused = point.Point.Id;
            throw;
        }
    }

    private async Task ResyncAsync(IReplicaPeer peer, ReplicaSiteInfo site, string why, CancellationToken cancellation)
    {
        Status.Apply(ReplicaChange.ResyncNeeded, why);
        await ledger.Cutting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            // Written first: whatever dies from here on, hashes are looked at anew.
            ledger.Change(each => each with { Resync = why });
            ReplicaSpool spool = ledger.RequireSpool();
            spool.Clear();
            await new PeerTrees(ledger.Id, peer).FetchAsync(site, spool, _ => { }, cancellation).ConfigureAwait(false);
            ledger.Change(each => each with { Newest = site.Newest });
            ledger.HasTrees = true;
            cuts.Reopen();
        }
        finally
        {
            ledger.Cutting.Release();
        }

        ledger.Cut.Set();
    }

    private async Task StartOverAsync(string why, CancellationToken cancellation)
    {
        await ledger.Cutting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ledger.RequireSpool().Clear();
            ledger.Change(each => each with { Newest = "", NewestTime = null, Resync = null, WhyFull = why });
            ledger.HasTrees = false;
            cuts.Reopen();
        }
        finally
        {
            ledger.Cutting.Release();
        }

        Status.Apply(ReplicaChange.SeedNeeded, why);
        ledger.Cut.Set();
    }

    // Both have the same, and nothing waits.
    private void Settle(Guid there)
    {
        if (there == Guid.Empty)
        {
            Status.Apply(ReplicaChange.SeedNeeded, "the recovery site has no point yet");
        }
        else if (ledger.Settings.Resync is null && (cuts.IsClosed || !ledger.IsLate))
        {
            Status.Apply(ReplicaChange.PointSafe, "the recovery site has the newest point");
        }
        else if (ledger.IsLate && !cuts.IsClosed)
        {
            Status.Apply(ReplicaChange.Late, "the newest point at the recovery site is older than two intervals");
        }
    }
}
