using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Moves;

/// <summary>All moves from other hosts: <see cref="IncomingMigration"/>, one each.</summary>
/// <param name="vms">The VMs.</param>
/// <param name="launcher">Gives them workers.</param>
/// <param name="storage">Where disks may be.</param>
/// <param name="decisions">What became of them.</param>
/// <param name="log">The log.</param>
internal sealed class Migrations(
    VmManager vms, IWorkerLauncher launcher, StorageFolders storage, DecisionTable decisions, ILogger<Migrations> log) : IHostedService
{
    private const int MostAtOnce = 32, MostKept = 128;

    private readonly ConcurrentDictionary<string, IncomingMigration> _all = new(StringComparer.Ordinal);

    /// <summary>Another host offers a VM: it is looked at, has its place from now on, and a worker that waits for it.</summary>
    /// <exception cref="ApiException">It is refused; what is in the way is named.</exception>
    internal async Task<MigrationInfo> OfferAsync(MigrationOffer offer, CancellationToken cancellation)
    {
        OfferCheck check = await Task.Run(() => OfferCheck.Require(offer, storage, () => vms.Processor(), cancellation), cancellation)
            .ConfigureAwait(false);
        if (decisions.Find(offer.Id) is not null || _all.ContainsKey(offer.Id))
        {
            throw new ApiException(409, "migration-known", "the move is known", $"{offer.Name}: the move {offer.Id} was offered before");
        }

        if (_all.Values.Count(one => one.Info.State == MigrationState.Receiving) >= MostAtOnce)
        {
            throw new ApiException(409, "migration-refused", "the VM is not taken", $"{MostAtOnce} VMs come already: try again later");
        }

        using IDisposable held = vms.Disks.Name(check.Current.Disks);
        VmRecord record = new(
            offer.Vm, offer.Name, offer.Spec, offer.Folder, 1, WantedOn: false, LastExit: null,
            Move: new MoveRecord(offer.Id, MoveKind.Incoming, MoveStep.Begun, WasPaused: false));
        ManagedVm vm = await vms.AddAsync(record, check.Current, make: null, cancellation).ConfigureAwait(false);
        IncomingMigration incoming = new(
            offer, vm, decisions, (gone, why) => vms.LeaveAsync(gone, "not-arrived", $"did not come from another host: {why}"), log);
        try
        {
            await incoming.BeginAsync(launcher, check.Current, cancellation).ConfigureAwait(false);
        }
        catch (WorkerException cause)
        {
            throw WorkerCalls.ToApi(cause);
        }

        _all[offer.Id] = incoming;
        Prune();
        return incoming.Info;
    }

    /// <summary>Where one stands.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal MigrationInfo Find(string id) => _all.TryGetValue(OfferCheck.RequireId(id), out IncomingMigration? one) ? one.Info
        : decisions.Find(id) is { } decision ? Info(id, decision)
        : throw Unknown(id);

    /// <summary>One that goes on.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal IncomingMigration Get(string id) =>
        _all.TryGetValue(OfferCheck.RequireId(id), out IncomingMigration? one) ? one : throw Unknown(id);

    /// <summary>Takes the VM, unless it is decided otherwise. Of a move that is not known nothing is taken, ever.</summary>
    internal Task<MigrationInfo> CommitAsync(string id) => _all.TryGetValue(OfferCheck.RequireId(id), out IncomingMigration? one)
        ? one.CommitAsync()
        : Task.FromResult(Info(id, decisions.Decide(id, Decision.Aborted)));

    /// <summary>Gives it up, unless it is decided otherwise; so that one that is not known yet never comes to be.</summary>
    internal Task<MigrationInfo> AbortAsync(string id) => _all.TryGetValue(OfferCheck.RequireId(id), out IncomingMigration? one)
        ? one.GiveUpAsync("the host that has it gave it up")
        : Task.FromResult(Info(id, decisions.Decide(id, Decision.Aborted)));

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>What is not decided is given up: the host that has the VM hears of it now, and not from the next daemon.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        foreach (IncomingMigration one in _all.Values)
        {
            try
            {
                await one.GiveUpAsync("vmmd ends").WaitAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is SqliteException or OperationCanceledException or ApiException)
            {
                DaemonLog.Undecided(log, one.Info.Id, one.Info.Id, cause.Message); // the next daemon decides
            }
        }
    }

    private static MigrationInfo Info(string id, Decision decision) =>
        new(id, decision == Decision.Committed ? MigrationState.Committed : MigrationState.Aborted);

    private static ApiException Unknown(string id) =>
        new(404, "no-such-migration", "no such move", $"{id}: no VM comes from another host by this move");

    // What is over is in the table of decisions; a few are kept for why.
    private void Prune()
    {
        foreach ((string id, IncomingMigration one) in _all)
        {
            if (_all.Count > MostKept && one.Info.State != MigrationState.Receiving)
            {
                _all.TryRemove(id, out _);
            }
        }
    }
}
