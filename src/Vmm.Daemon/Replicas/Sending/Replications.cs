using System.Collections.Concurrent;
using Microsoft.Extensions.Hosting;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>All VMs of this host that are replicated to other sites: <see cref="VmReplication"/>, one each.</summary>
/// <param name="vms">The VMs.</param>
/// <param name="parts">What all use.</param>
/// <param name="changes">Makes what tells the writes of a VM.</param>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one.
#pragma warning disable CA1001
internal sealed class Replications(VmManager vms, ReplicaParts parts, Func<ManagedVm, IChangeSource> changes) : IHostedService
#pragma warning restore CA1001
{
    private readonly ConcurrentDictionary<string, VmReplication> _all = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _changing = new(1, 1);

    /// <summary>All, by the VM's name.</summary>
    internal IReadOnlyList<(ReplicaInfo Info, int Points)> All => [.. _all.Values
        .Select(each => (each.Info, each.SpooledPoints)).OrderBy(each => each.Info.Vm, StringComparer.Ordinal)];

    /// <summary>Goes on with those of an earlier daemon.</summary>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        IReadOnlyDictionary<string, ReplicaSettings> known = parts.Table.All();
        foreach (ManagedVm vm in vms.All)
        {
            if (known.TryGetValue(vm.Record.Id, out ReplicaSettings? settings))
            {
                Begin(vm, settings);
            }
        }

        return Task.CompletedTask;
    }

    /// <summary>Stops cutting and sending; the next daemon goes on.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        try
        {
            await Task.WhenAll(_all.Values.Select(each => each.DisposeAsync().AsTask())).WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // A cut is being merged, say: the next daemon finds what it left.
        }
    }

    /// <summary>The replication of a VM.</summary>
    /// <exception cref="ApiException">There is no such VM, or it is not replicated.</exception>
    internal VmReplication Get(string name) =>
        _all.TryGetValue(vms.Get(name).Record.Id, out VmReplication? one) ? one : throw ReplicaProblem.None(name);

    /// <summary>Replicates a VM, or changes how. The other site has answered when this returns.</summary>
    /// <exception cref="ApiException">The wish cannot be, or the other site refuses.</exception>
    internal async Task<ReplicaInfo> EnableAsync(string name, ReplicaWish wish, CancellationToken cancellation)
    {
        ReplicaWishCheck.Require(wish);
        ManagedVm vm = vms.Get(name);
        IReadOnlyList<ReplicaDisk> disks = await vm.Cuts.DisksAsync(wish.Disks).ConfigureAwait(false);
        await _changing.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_all.TryGetValue(vm.Record.Id, out VmReplication? present))
            {
                if (!string.Equals(present.Settings.To, wish.To, StringComparison.Ordinal))
                {
                    throw new ApiException(409, "replica-elsewhere", "the VM is replicated to another site",
                        $"{name} is replicated to {present.Settings.To}: end that first with 'vmmctl replica disable {name}'");
                }

                ReplicaSettings wanted = Wanted(wish, present.Settings.Generations);
                present.Change(each => each with
                {
                    Disks = wanted.Disks,
                    IntervalSeconds = wanted.IntervalSeconds,
                    Keep = wanted.Keep,
                    BytesPerSecond = wanted.BytesPerSecond,
                    QuiesceSeconds = wanted.QuiesceSeconds,
                });
                return present.Info;
            }

            ReplicaSettings settings = await PairAsync(vm, wish, disks, cancellation).ConfigureAwait(false);
            RemoveFiles(name); // of a replication that was ended while they could not be removed
            parts.Table.Save(vm.Record.Id, settings);
            VmReplication begun = Begin(vm, settings);
            begun.Status.Say("replica-enabled", $"it is replicated to {wish.To} every {settings.IntervalSeconds} s");
            return begun.Info;
        }
        finally
        {
            _changing.Release();
        }
    }

    /// <summary>Ends the replication of a VM; its points stay at the other site, which is told.</summary>
    /// <exception cref="ApiException">There is no such VM, or it is not replicated.</exception>
    internal async Task DisableAsync(string name, CancellationToken cancellation)
    {
        VmReplication one = Get(name);
        await _changing.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ManagedVm vm = vms.Get(name);
            if (!_all.TryRemove(vm.Record.Id, out _))
            {
                throw ReplicaProblem.None(name);
            }

            string? untold = await one.EndAsync().ConfigureAwait(false);
            parts.Table.Remove(vm.Record.Id);
            vm.Cuts.Gone = null;
            RemoveFiles(name);
            one.Status.Say("replica-disabled", untold is null
                ? $"it is not replicated to {one.Settings.To} any more; its points stay there"
                : $"it is not replicated to {one.Settings.To} any more, which could not be told: {untold}");
        }
        finally
        {
            _changing.Release();
        }
    }

    private async Task<ReplicaSettings> PairAsync(
        ManagedVm vm, ReplicaWish wish, IReadOnlyList<ReplicaDisk> disks, CancellationToken cancellation)
    {
        try
        {
            using IReplicaPeer peer = parts.Connect(wish.To);
            ReplicaSiteInfo? site = await peer.FindAsync(vm.Record.Id, cancellation).ConfigureAwait(false);
            // A replica of this VM that is there already goes on: it was ended here, or the VM came from another host.
            ReplicaGenerations generations = site?.Generations ?? new ReplicaGenerations(Guid.NewGuid().ToString("D"));
            if (site is { State: not ReplicaSiteState.Receiving })
            {
                throw ReplicaProblem.Fenced(vm.Record.Name, Fence.Of(generations, site)!);
            }

            ReplicaSettings settings = Wanted(wish, generations);
            site = await peer.PairAsync(
                new ReplicaOffer(vm.Record.Id, vm.Record.Name, parts.Source, generations, disks, settings.Keep), cancellation)
                .ConfigureAwait(false);
            return settings with
            {
                Resync = site.Newest.Length > 0 ? "the recovery site has points of the VM, and it was enabled anew" : null,
                Generations = site.Generations,
            };
        }
        catch (PeerException cause)
        {
            throw ReplicaProblem.OfPeer(vm.Record.Name, cause);
        }
    }

    private static ReplicaSettings Wanted(ReplicaWish wish, ReplicaGenerations generations) => new(
        wish.To, wish.Disks, wish.IntervalSeconds ?? 30, wish.Keep ?? new ReplicaKeep(), wish.BytesPerSecond, wish.QuiesceSeconds,
        generations);

    private VmReplication Begin(ManagedVm vm, ReplicaSettings settings)
    {
        VmReplication one = new(vm, settings, parts, changes(vm));
        _all[vm.Record.Id] = one;
        string id = vm.Record.Id, name = vm.Record.Name;
        vm.Cuts.Gone = () =>
        {
            // It is another host's now: what waits here is of no use to anybody. Its row goes with its record.
            if (_all.TryRemove(id, out VmReplication? gone))
            {
                _ = LeaveAsync(gone, name);
            }
        };
        one.Start();
        return one;
    }

    private async Task LeaveAsync(VmReplication gone, string name)
    {
        await gone.DisposeAsync().ConfigureAwait(false);
        RemoveFiles(name);
    }

    private void RemoveFiles(string name)
    {
        string folder = parts.FolderOf(name);
        try
        {
            if (Directory.Exists(folder))
            {
                Directory.Delete(folder, recursive: true);
            }

            // The VM has a folder of its own only when it has disks in it.
            if (Path.GetDirectoryName(folder) is { } around && Directory.Exists(around)
                && !Directory.EnumerateFileSystemEntries(around).Any())
            {
                Directory.Delete(around);
            }
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            DaemonLog.ReplicaFilesStay(parts.Log, name, folder, cause.Message);
        }
    }
}
