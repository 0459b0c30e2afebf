using System.Collections.Concurrent;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>All replicas of VMs of other hosts, a folder each.</summary>
/// <param name="folder">Where they are.</param>
/// <param name="vms">The VMs of this host.</param>
/// <param name="log">The log.</param>
#pragma warning disable CA1001 // Its semaphores have nothing to release as long as nobody asks for their handles.
internal sealed class ReplicaLibrary(string folder, VmManager vms, ILogger<ReplicaLibrary> log) : IHostedService
#pragma warning restore CA1001
{
    private const int MostReplicas = 256, SealsAtOnce = 2;
    private const string Pending = ".part";
    private const UnixFileMode OwnerFolder = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly ConcurrentDictionary<string, Replica> _byName = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _seals = new(SealsAtOnce, SealsAtOnce), _changes = new(1, 1);

    /// <summary>Replicas that this host sends; another part of vmmd tells them.</summary>
    internal Func<IReadOnlyList<ReplicaInfo>> Sent { get; set; } = static () => [];

    /// <summary>All of them, by name.</summary>
    internal IReadOnlyList<Replica> All => [.. _byName.Values.OrderBy(replica => replica.Name, StringComparer.Ordinal)];

    /// <summary>Opens what is there. One that cannot be read is told of, and nothing is done with its folder.</summary>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        _ = Directory.CreateDirectory(folder, OwnerFolder);
        foreach (string path in Directory.EnumerateDirectories(folder).Order(StringComparer.Ordinal))
        {
            if (Path.GetFileName(path).StartsWith('.'))
            {
                Directory.Delete(path, recursive: true); // was about to come or to go
                continue;
            }

            try
            {
                Replica replica = Open(path);
                _byName[replica.Name] = replica;
                if (replica.Damage is { } damage)
                {
                    Tell(replica.Name, $"it cannot be used: {damage}");
                }
            }
            catch (Exception cause) when (cause is InvalidDataException or IOException or UnauthorizedAccessException)
            {
                Tell(Path.GetFileName(path), $"it cannot be read: {cause.Message}");
            }
        }

        return Task.CompletedTask;
    }

    /// <summary>Lets go of them.</summary>
    public Task StopAsync(CancellationToken cancellationToken)
    {
        foreach (Replica replica in _byName.Values)
        {
            replica.Dispose();
        }

        return Task.CompletedTask;
    }

    /// <summary>One, by the name of its VM at the primary.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal Replica Get(string name) => _byName.TryGetValue(name, out Replica? replica) ? replica : throw NotFound(name);

    /// <summary>One, for the peer that made it.</summary>
    /// <param name="vm">The VM's id.</param>
    /// <param name="peer">Who asks.</param>
    /// <exception cref="ApiException">There is none, or it is another peer's.</exception>
    internal Replica GetOf(string vm, Principal peer)
    {
        Replica replica = FindOf(vm) ?? throw NotFound(vm);
        return string.Equals(replica.Record.Peer, peer.Name, StringComparison.Ordinal) ? replica : throw new ApiException(
            403, "replica-not-yours", "not allowed", $"{vm}: another vmmd than {peer.Name} made this replica");
    }

    /// <summary>A peer makes a replica, or renews its pairing.</summary>
    /// <param name="vm">The VM's id, as the path has it.</param>
    /// <param name="offer">The offer.</param>
    /// <param name="peer">Who asks.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It is refused.</exception>
    internal async Task<ReplicaSiteInfo> PairAsync(string vm, ReplicaOffer offer, Principal peer, CancellationToken cancellation)
    {
        OfferRules.Require(offer);
        if (!string.Equals(vm, offer.Vm, StringComparison.Ordinal))
        {
            throw OfferRules.Refused($"vm: {offer.Vm}, and the path has {vm}");
        }

        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if ((FindOf(offer.Vm) ?? _byName.GetValueOrDefault(offer.Name)) is { } replica)
            {
                _ = await replica.ChangeAsync(record => Pairing.Renew(record, offer, peer.Name), cancellation).ConfigureAwait(false);
                return replica.SiteInfo();
            }

            Replica made = Make(offer, peer);
            _byName[made.Name] = made;
            Tell(made.Name, $"{offer.Source} ({peer.Name}) replicates it to this host");
            return made.SiteInfo();
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>Removes a replica with its points.</summary>
    /// <param name="replica">It.</param>
    /// <param name="usersOf">Names VMs that stand on it.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">VMs stand on it, or it is failed over.</exception>
    internal async Task DeleteAsync(Replica replica, Func<IReadOnlyList<string>> usersOf, CancellationToken cancellation)
    {
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            _ = await replica.ChangeAsync(
                record =>
                {
                    _ = ReplicaStates.Next(record.Name, record.State, ReplicaEvent.Delete);
                    return usersOf() is { Count: > 0 } users ? throw InUse(record.Name, users) : record with { IsPaired = false };
                },
                cancellation).ConfigureAwait(false);
            replica.Dispose();
            string gone = Path.Combine(folder, $".{replica.Name}{Pending}");
            Directory.Move(replica.Folder, gone);
            HostFolder.Flush(folder);
            _ = _byName.TryRemove(replica.Name, out _);
            Directory.Delete(gone, recursive: true);
            Tell(replica.Name, "it was deleted with its points");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            throw new ApiException(
                507, "replica-delete-failed", "the replica cannot be deleted", $"{replica.Name}: {cause.Message}", inner: cause);
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>Tells what happens to a replica: an event, and a line in the log.</summary>
    internal void Tell(string name, string what)
    {
        vms.Events.Publish("replica", name, message: what);
        DaemonLog.ReplicaTold(log, name, what);
    }

    /// <summary>Is called when a point was added.</summary>
    internal Action<Replica, ArrangedPoint>? Arrived { get; set; }

    private Replica Open(string path) => new(path, _seals, log) { Arrived = (replica, point) => Arrived?.Invoke(replica, point) };

    private Replica? FindOf(string vm) =>
        _byName.Values.FirstOrDefault(replica => string.Equals(replica.Record.Vm, vm, StringComparison.Ordinal));

    private Replica Make(ReplicaOffer offer, Principal peer)
    {
        if (vms.All.FirstOrDefault(vm => string.Equals(vm.Record.Id, offer.Vm, StringComparison.Ordinal)
            || string.Equals(vm.Record.Name, offer.Name, StringComparison.Ordinal)) is { } present)
        {
            throw new ApiException(409, "replica-taken", "the name or the id is taken", $"{offer.Name}: this host has a VM "
                + $"{present.Record.Name} ({present.Record.Id}) of its own, beside which the replica could not be failed over: delete it "
                + "first");
        }

        string path = Path.Combine(folder, offer.Name), part = Path.Combine(folder, $".{offer.Name}{Pending}");
        if (_byName.Count >= MostReplicas || Path.Exists(path))
        {
            throw new ApiException(409, "replica-taken", "the name is taken", _byName.Count >= MostReplicas
                ? $"{offer.Name}: there are {MostReplicas} replicas, and no more are possible"
                : $"{offer.Name}: {path} is there, and is no replica that can be read: move it away first");
        }

        try
        {
            if (Directory.Exists(part))
            {
                Directory.Delete(part, recursive: true);
            }

            _ = Directory.CreateDirectory(part, OwnerFolder);
            ReplicaFolder.Create(Replica.PointsOf(part), Guid.Parse(offer.Vm)).Dispose();
            SiteFile.Write(part, Pairing.Begin(offer, peer.Name));
            Directory.Move(part, path);
            HostFolder.Flush(folder);
            return Open(path);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or BlockException)
        {
            throw new ApiException(507, "no-space", "the replica cannot be made", $"{offer.Name}: {cause.Message}", inner: cause);
        }
    }

    private static ApiException InUse(string name, IReadOnlyList<string> users) => new(
        409, "replica-in-use", "VMs stand on the replica", $"{name}: {string.Join(", ", users)} "
            + "stand on its points: delete them first, or bring what they need into their own disks (vmmctl vm stream)");

    private static ApiException NotFound(string name) => new(
        404, "replica-not-found", "no such replica",
        $"{name}: there is no replica of this VM here; 'vmmctl replica status' shows those there are");
}
