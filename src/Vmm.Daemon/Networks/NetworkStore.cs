using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.HostNet;
using Vmm.Spec;

namespace Vmm.Daemon.Networks;

/// <summary>Private networks: which there are, who uses them, and that they are up while the daemon is there.</summary>
/// <param name="library">Where they are stored.</param>
/// <param name="host">What they are made of.</param>
/// <param name="vms">The VMs, which come later than this.</param>
/// <param name="events">Hears of what happens.</param>
/// <param name="log">The log.</param>
#pragma warning disable CA1001 // Its semaphore has nothing to release as long as nobody asks for its handle.
internal sealed class NetworkStore(
    NetworkLibrary library, INetworkHost host, Func<VmManager> vms, EventHub events, ILogger<NetworkStore> log) : IHostedService
#pragma warning restore CA1001
{
    private const int MostNetworks = 256;

    private readonly Lock _gate = new();
    private readonly Dictionary<string, Network> _networks = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _changes = new(1, 1);

    /// <summary>Reads them, forgets addresses of VMs that are no more, and brings them up. One that cannot be up keeps nobody.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        HashSet<string> there = [.. vms().All.Select(vm => vm.Record.Name)];
        foreach (NetworkRecord record in library.Read((path, why) => DaemonLog.NetworkUnread(log, path, why)))
        {
            Network network = new(record, library);
            network.Run = Open(network);
            network.Keep(there.Contains);
            _networks[record.Name] = network;
        }

        await Task.WhenAll(_networks.Values.Select(async network =>
        {
            try
            {
                await network.Run!.EnsureAsync().WaitAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (HostNetException cause)
            {
                Tell(NetworkRun.Failed, cause.Message);
            }

            network.Run!.Keep();
        })).ConfigureAwait(false);
    }

    /// <summary>Lets go of them; they stay.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        foreach (Network network in All())
        {
            await network.Run!.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>All networks, by name.</summary>
    internal NetworkList List() => new([.. All().OrderBy(n => n.Record.Name, StringComparer.Ordinal).Select(Describe)]);

    /// <summary>One network.</summary>
    /// <exception cref="ApiException">There is none of this name.</exception>
    internal NetworkInfo Get(string name) => Describe(Find(name));

    /// <summary>Makes one.</summary>
    /// <exception cref="ApiException">It makes no sense, its name or range is taken, or the host cannot.</exception>
    internal async Task<NetworkInfo> CreateAsync(NetworkRequest wish, CancellationToken cancellation)
    {
        NetworkPlan.RequireName(wish.Name);
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (library.Has(wish.Name) || All().Count >= MostNetworks)
            {
                throw new ApiException(409, "name-taken", "the name is taken", library.Has(wish.Name)
                    ? $"{wish.Name}: there is a network of this name"
                    : $"{wish.Name}: there are {MostNetworks} networks, and no more are possible");
            }

            NetworkPlan plan = new(host, [.. All().Select(n => n.Private)]);
            NetworkRecord record = new(wish.Name, Guid.NewGuid().ToString(), plan.FreeNumber(), plan.SubnetOf(wish.Subnet).ToString(),
                wish.Isolated, DateTimeOffset.UtcNow, [], plan.Ipv6Of(wish.Ipv6)?.ToString());
            return Describe(await BringUpAsync(new Network(record, library)).ConfigureAwait(false));
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>Changes one. VMs that run learn of it by their leases; their devices, when they are started again.</summary>
    /// <exception cref="ApiException">There is none, it makes no sense, or its range is taken.</exception>
    internal async Task<NetworkInfo> ChangeAsync(string name, NetworkChange change, CancellationToken cancellation)
    {
        await _changes.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            Network network = Find(name);
            NetworkPlan plan = new(host, [.. All().Where(n => n != network).Select(n => n.Private)]);
            Ipv6Prefix? ipv6 = plan.ChangeOf(network.Private, change.Ipv6);
            if (ipv6 != network.Private.Ipv6)
            {
                lock (_gate)
                {
                    network.Change(ipv6);
                }

                await BringUpAgainAsync(network).ConfigureAwait(false);
            }

            return Describe(network);
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>Deletes one: all that was made of it is gone.</summary>
    /// <exception cref="ApiException">There is none, a VM uses it, or something of it stays.</exception>
    internal async Task RemoveAsync(string name)
    {
        await _changes.WaitAsync().ConfigureAwait(false);
        try
        {
            Network network = Find(name);
            lock (_gate)
            {
                if (UsersOf(network) is { Count: > 0 } users)
                {
                    throw new ApiException(409, "network-in-use", "the network is in use",
                        $"{name} is used by {string.Join(", ", users)}: delete {(users.Count > 1 ? "those VMs" : "that VM")} first, or "
                            + "detach the device ('vmmctl vm detach')");
                }

                network.IsLeaving = true;
            }

            await TakeDownAsync(network).ConfigureAwait(false);
        }
        finally
        {
            _changes.Release();
        }
    }

    /// <summary>
    /// Reserves what the devices of a spec need. Until the answer is disposed of, none of their networks is deleted; then a VM has to have
    /// it in its spec.
    /// </summary>
    /// <exception cref="ApiException">There is no such network, or it has not what the device wants.</exception>
    internal async Task<IDisposable> HoldAsync(VmSpec spec, string part = "")
    {
        List<Network> changed = [];
        NetworkHold hold = new(_gate);
        try
        {
            lock (_gate)
            {
                for (int i = 0; i < spec.Nets.Count; i++)
                {
                    if (spec.Nets[i].Network is { } name)
                    {
                        string field = $"nets[{i}]."[Math.Min(part.Length, $"nets[{i}].".Length)..];
                        Network network = _networks.GetValueOrDefault(name) is { IsLeaving: false } known ? known
                            : throw Problem(field + "network", $"there is no network {name}: 'vmmctl network create {name}' makes one");
                        hold.Add(network, spec.Name);
                        if (network.Reserve(spec.Name, spec.Nets[i], i, out string problem))
                        {
                            changed.Add(network);
                        }
                        else if (problem.Length > 0)
                        {
                            throw Problem(field + (problem.StartsWith("mac ", StringComparison.Ordinal) ? "mac" : "addresses"), problem);
                        }
                    }
                }
            }

            await UpdateAsync(changed).ConfigureAwait(false);
            return hold;
        }
        catch
        {
            hold.Dispose();
            throw;
        }
    }

    /// <summary>Gives back what a VM has reserved and its spec does not need.</summary>
    /// <param name="vm">The VM.</param>
    /// <param name="spec">Its spec; null: there is no such VM any more.</param>
    internal async Task KeepAsync(string vm, VmSpec? spec)
    {
        List<Network> changed;
        lock (_gate)
        {
            changed = [.. _networks.Values.Where(network => network.Keep(vm, spec))];
        }

        await UpdateAsync(changed).ConfigureAwait(false);
    }

    /// <summary>The addresses of a VM, those of IPv6 behind the others.</summary>
    internal IReadOnlyList<string> AddressesOf(string vm)
    {
        lock (_gate)
        {
            bool all = _networks.Values.All(n => n.Private.Ipv6 is null) || host.Ipv6Problem is null;
            return [.. _networks.Values.SelectMany(n => n.AddressesOf(vm)).Where(a => all || a.AddressFamily is AddressFamily.InterNetwork)
                .OrderBy(a => a.AddressFamily is AddressFamily.InterNetworkV6).Select(a => a.ToString())];
        }
    }

    /// <summary>A device of a network as one on its bridge: held to its MAC address and to the address that is reserved for it.</summary>
    /// <param name="vm">The VM.</param>
    /// <param name="net">The device.</param>
    /// <param name="index">Its place.</param>
    /// <returns>The device, and what its tap is called beside the VM.</returns>
    /// <exception cref="HostNetException">The network is not there, or not up.</exception>
    internal (NetSpec Net, PrivateNetwork Network) Resolve(string vm, NetSpec net, int index)
    {
        lock (_gate)
        {
            Network network = _networks.GetValueOrDefault(net.Network!) ?? throw new HostNetException(
                $"there is no network {net.Network}: 'vmmctl network create {net.Network}' makes one");
            if (network.Run?.Problem is { } problem)
            {
                throw new HostNetException($"network {net.Network} is not up: {problem}");
            }

            return (network.OnBridge(vm, net, index), network.Private);
        }
    }

    private async Task<Network> BringUpAsync(Network network)
    {
        network.Run = Open(network);
        try
        {
            library.Write(network.Record);
            await network.Run.EnsureAsync().ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is HostNetException or IOException or UnauthorizedAccessException)
        {
            await UndoAsync(network).ConfigureAwait(false);
            throw new ApiException(
                502, "network-failed", "the network could not be made", $"{network.Record.Name}: {cause.Message}", inner: cause);
        }

        network.Run.Keep();
        lock (_gate)
        {
            _networks[network.Record.Name] = network;
        }

        Tell("network-created", $"{network.Record.Name}: {network.Record.Subnet}"
            + (network.Record.Ipv6 is { } ipv6 ? $" and {ipv6}{(host.Ipv6Problem is { } why ? $" (not now: {why})" : "")}" : "")
            + $" on {network.Private.Bridge}");
        return network;
    }

    // One that cannot be up now is tried again, as at any other time.
    private async Task BringUpAgainAsync(Network network)
    {
        try
        {
            await network.Run!.ChangeAsync(network.Private, host.Open(network.Private)).ConfigureAwait(false);
            EndForwarding();
        }
        catch (HostNetException cause)
        {
            Tell(NetworkRun.Failed, cause.Message);
        }

        Tell("network-changed", $"{network.Record.Name}: {network.Record.Ipv6 ?? "no IPv6"}");
    }

    private async Task UndoAsync(Network network)
    {
        try
        {
            await network.Run!.RemoveAsync().ConfigureAwait(false);
            EndForwarding();
        }
        catch (Exception cause) when (cause is HostNetException or IOException or UnauthorizedAccessException)
        {
            Tell(NetworkRun.Failed, $"{network.Record.Name} was not made, and something of it stays: {cause.Message}");
        }

        await network.Run!.DisposeAsync().ConfigureAwait(false);
        library.Remove(network.Record.Name);
    }

    private async Task TakeDownAsync(Network network)
    {
        string name = network.Record.Name;
        try
        {
            await network.Run!.RemoveAsync().ConfigureAwait(false);
            library.Remove(name);
        }
        catch (Exception cause) when (cause is HostNetException or IOException or UnauthorizedAccessException)
        {
            await network.Run!.DisposeAsync().ConfigureAwait(false);
            lock (_gate)
            {
                network.IsLeaving = false;
            }

            network.Run = Open(network);
            network.Run.Keep();
            throw new ApiException(502, "network-failed", "the network could not be deleted", $"{name}: {cause.Message}", inner: cause);
        }

        lock (_gate)
        {
            _networks.Remove(name);
        }

        await network.Run!.DisposeAsync().ConfigureAwait(false);
        EndForwarding();
        Tell("network-deleted", name);
    }

    private void EndForwarding()
    {
        try
        {
            foreach (bool ipv6 in (ReadOnlySpan<bool>)[false, true])
            {
                if (All().All(n => n.Record.Isolated || (ipv6 && n.Record.Ipv6 is null)) && host.EndForwarding(ipv6) is { } setting)
                {
                    Tell(NetworkRun.Forwarding, $"the host forwards no packets any more ({setting}), as before");
                }
            }
        }
        catch (HostNetException cause)
        {
            Tell(NetworkRun.Failed, cause.Message);
        }
    }

    private NetworkRun Open(Network network) => new(network.Private, host.Open(network.Private), () =>
    {
        lock (_gate)
        {
            return network.ReservedAddresses();
        }
    }, Tell);

    private async Task UpdateAsync(List<Network> changed)
    {
        foreach (Network network in changed)
        {
            try
            {
                await network.Run!.UpdateAsync().ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                throw new ApiException(502, "network-failed", "the network does not learn of the address",
                    $"{network.Record.Name}: {cause.Message}", inner: cause);
            }
        }
    }

    private NetworkInfo Describe(Network network)
    {
        lock (_gate)
        {
            return network.Describe(UsersOf(network), host.Ipv6Problem);
        }
    }

    private IReadOnlyList<string> UsersOf(Network network) =>
        [.. vms().Nets.UsersOf(network.Record.Name).Union(network.Holders, StringComparer.Ordinal).Order(StringComparer.Ordinal)];

    private Network Find(string name)
    {
        lock (_gate)
        {
            return _networks.GetValueOrDefault(name) ?? throw new ApiException(404, "network-not-found", "no such network",
                $"{name}: there is no network of this name; 'vmmctl network list' shows those there are");
        }
    }

    private List<Network> All()
    {
        lock (_gate)
        {
            return [.. _networks.Values];
        }
    }

    private void Tell(string kind, string message)
    {
        events.Publish(kind, "", message: message);
        if (kind is NetworkRun.Failed)
        {
            DaemonLog.NetworkFails(log, message);
        }
        else
        {
            DaemonLog.NetworkTold(log, kind, message);
        }
    }

    private static ApiException Problem(string field, string problem) =>
        ApiException.OfSpec(new SpecException([new SpecProblem(field, problem)]));
}
