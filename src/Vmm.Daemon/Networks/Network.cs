using System.Net;
using Vmm.Contracts.Rest;
using Vmm.HostNet;
using Vmm.Spec;

namespace Vmm.Daemon.Networks;

/// <summary>One network with the addresses that are reserved on it. Used under the lock of <see cref="NetworkStore"/>.</summary>
/// <param name="record">What is stored.</param>
/// <param name="library">Where it is stored.</param>
internal sealed class Network(NetworkRecord record, NetworkLibrary library)
{
    private readonly List<string> _holders = [];

    /// <summary>What is stored.</summary>
    internal NetworkRecord Record { get; private set; } = record;

    /// <summary>What it is on the host.</summary>
    internal PrivateNetwork Private { get; private set; } =
        new(record.Name, record.Id, record.Number, SubnetOf(record), record.Isolated, PrefixOf(record));

    /// <summary>What keeps it up.</summary>
    internal NetworkRun? Run { get; set; }

    /// <summary>It is being deleted.</summary>
    internal bool IsLeaving { get; set; }

    /// <summary>VMs that are about to use it.</summary>
    internal IReadOnlyList<string> Holders => _holders;

    /// <summary>A VM is about to use it.</summary>
    internal void Hold(string vm) => _holders.Add(vm);

    /// <summary>It is not any more: it does, or does not.</summary>
    internal void LetGo(string vm) => _holders.Remove(vm);

    /// <summary>The address of a device; null: none is reserved.</summary>
    internal NetworkReservation? Find(string mac) =>
        Record.Reserved.FirstOrDefault(r => string.Equals(r.Mac, mac, StringComparison.Ordinal));

    /// <summary>Reserves an address for a device of a VM.</summary>
    /// <param name="vm">The VM.</param>
    /// <param name="net">The device.</param>
    /// <param name="index">Its place in the spec.</param>
    /// <param name="problem">Why not; empty: it has one, now or already.</param>
    /// <returns>It was reserved now.</returns>
    internal bool Reserve(string vm, NetSpec net, int index, out string problem)
    {
        string mac = MacAddress.Of(net, vm, index);
        NetworkReservation? present = Find(mac);
        string? wanted = net.Addresses is { Count: > 0 } addresses ? addresses[0] : null;
        problem = "";
        if (present is not null && !string.Equals(present.Vm, vm, StringComparison.Ordinal))
        {
            problem = $"mac {mac} is that of {present.Vm} on network {Record.Name}: give this device another";
            return false;
        }

        if (present is not null && (wanted is null || string.Equals(present.Address, wanted, StringComparison.Ordinal)))
        {
            return false;
        }

        uint? free = wanted is null ? Free() : Wanted(wanted, mac, out problem);
        if (free is not { } number)
        {
            problem = problem.Length > 0 ? problem : $"all {Private.Subnet.Count - 4} addresses of network {Record.Name} are reserved";
            return false;
        }

        Change([
            .. Record.Reserved.Where(r => r != present),
            new NetworkReservation(vm, mac, Private.Subnet.Address(number - Private.Subnet.First).ToString()),
        ]);
        return true;
    }

    /// <summary>It has another IPv6 range, or none.</summary>
    internal void Change(Ipv6Prefix? ipv6)
    {
        Store(Record with { Ipv6 = ipv6?.ToString() });
        Private = Private with { Ipv6 = ipv6 };
    }

    /// <summary>The addresses of a VM.</summary>
    internal IEnumerable<IPAddress> AddressesOf(string vm) => Record.Reserved
        .Where(r => string.Equals(r.Vm, vm, StringComparison.Ordinal)).Select(r => IPAddress.Parse(r.Address))
        .SelectMany(address => Private.Ipv6Of(address) is { } ipv6 ? (IPAddress[])[address, ipv6] : [address]);

    /// <summary>A device of it as one on its bridge: held to its MAC address and to the addresses that are reserved for it.</summary>
    /// <exception cref="HostNetException">None is.</exception>
    internal NetSpec OnBridge(string vm, NetSpec net, int index)
    {
        string mac = MacAddress.Of(net, vm, index);
        NetworkReservation reserved = Find(mac) is { } found && string.Equals(found.Vm, vm, StringComparison.Ordinal)
            ? found
            : throw new HostNetException($"network {Record.Name} has no address for {mac} of {vm}: detach the device and attach it again");
        string? ipv6 = Private.Ipv6Of(IPAddress.Parse(reserved.Address))?.ToString();
        return net with
        {
            Network = null,
            Bridge = Private.Bridge,
            Mac = mac,
            AntiSpoof = true,
            Addresses = ipv6 is null ? [reserved.Address] : [reserved.Address, ipv6],
        };
    }

    /// <summary>Forgets what a VM has reserved and its spec does not need.</summary>
    /// <returns>Something was forgotten.</returns>
    internal bool Keep(string vm, VmSpec? spec)
    {
        HashSet<string> needed = new(StringComparer.Ordinal);
        for (int i = 0; i < (spec?.Nets.Count ?? 0); i++)
        {
            if (string.Equals(spec!.Nets[i].Network, Record.Name, StringComparison.Ordinal))
            {
                needed.Add(MacAddress.Of(spec.Nets[i], vm, i));
            }
        }

        return Forget(r => string.Equals(r.Vm, vm, StringComparison.Ordinal) && !needed.Contains(r.Mac));
    }

    /// <summary>Forgets what is reserved for VMs that there are not.</summary>
    internal void Keep(Func<string, bool> isThere) => Forget(r => !isThere(r.Vm));

    /// <summary>What is reserved, in the order of the record.</summary>
    internal IReadOnlyList<ReservedAddress> ReservedAddresses()
    {
        // Two VMs whose names are one name of a host: the first has it.
        Dictionary<string, string> owners = new(StringComparer.Ordinal);
        return [.. Record.Reserved.Select(r =>
        {
            string? name = PrivateNetwork.HostName(r.Vm);
            bool own = name is not null && (owners.TryAdd(name, r.Vm) || string.Equals(owners[name], r.Vm, StringComparison.Ordinal));
            IPAddress address = IPAddress.Parse(r.Address);
            return new ReservedAddress(own ? name : null, r.Mac, address, Private.Ipv6Of(address));
        })];
    }

    /// <summary>What is told of it.</summary>
    /// <param name="users">VMs that use it.</param>
    /// <param name="noIpv6">Why the host has no IPv6; null: it has.</param>
    internal NetworkInfo Describe(IReadOnlyList<string> users, string? noIpv6) => new(
        Record.Name, Run!.Problem is null ? "up" : "failed", Run.Problem, Record.Subnet, Private.Gateway.ToString(),
        Private.Server.ToString(), Private.Bridge, Record.Isolated, PrivateNetwork.Domain, Record.Created,
        [.. ReservedAddresses().Zip(Record.Reserved, (r, of) => new NetworkAddress(of.Vm, r.Mac, of.Address, r.Name, r.Ipv6?.ToString()))],
        users, Record.Ipv6, Private.Gateway6?.ToString(), Private.Server6?.ToString(), Record.Ipv6 is null ? null : noIpv6);

    private bool Forget(Func<NetworkReservation, bool> which)
    {
        List<NetworkReservation> kept = [.. Record.Reserved.Where(r => !which(r))];
        bool changes = kept.Count != Record.Reserved.Count;
        if (changes)
        {
            Change(kept);
        }

        return changes;
    }

    private void Change(IReadOnlyList<NetworkReservation> reserved) => Store(Record with { Reserved = reserved });

    private void Store(NetworkRecord next)
    {
        library.Write(next);
        Record = next;
    }

    private uint? Wanted(string address, string mac, out string problem)
    {
        Ipv4Subnet subnet = Private.Subnet;
        bool read = Ipv4Subnet.TryParseAddress(address, out uint number);
        NetworkReservation? other =
            Record.Reserved.FirstOrDefault(r => string.Equals(r.Address, address, StringComparison.Ordinal)
                && !string.Equals(r.Mac, mac, StringComparison.Ordinal));
        problem = !read || !subnet.Contains(number) || number - subnet.First < PrivateNetwork.FirstGuest
            || number - subnet.First > subnet.Count - 2
            ? $"{address} is not one that a VM can have on network {Record.Name}: those are {subnet.Address(PrivateNetwork.FirstGuest)} to "
                + $"{subnet.Address((uint)subnet.Count - 2)}"
            : other is not null ? $"{address} is reserved for {other.Vm} on network {Record.Name}"
            : "";
        return problem.Length == 0 ? number : null;
    }

    private uint? Free()
    {
        HashSet<string> taken = [.. Record.Reserved.Select(r => r.Address)];
        for (uint i = PrivateNetwork.FirstGuest; i <= Private.Subnet.Count - 2; i++)
        {
            if (!taken.Contains(Private.Subnet.Address(i).ToString()))
            {
                return Private.Subnet.First + i;
            }
        }

        return null;
    }

    private static Ipv6Prefix? PrefixOf(NetworkRecord record) =>
        record.Ipv6 is null ? null
        : Ipv6Prefix.TryParse(record.Ipv6, out Ipv6Prefix prefix, out string problem) ? prefix
        : throw new InvalidDataException($"{record.Name}: {record.Ipv6} {problem}");

    private static Ipv4Subnet SubnetOf(NetworkRecord record) =>
        Ipv4Subnet.TryParse(record.Subnet, out Ipv4Subnet subnet, out string problem)
            ? subnet
            : throw new InvalidDataException($"{record.Name}: {record.Subnet} {problem}");
}

/// <summary>Keeps networks from being deleted while a VM comes to use them.</summary>
/// <param name="gate">The lock of the networks.</param>
internal sealed class NetworkHold(Lock gate) : IDisposable
{
    private readonly List<(Network Network, string Vm)> _held = [];

    /// <summary>One more; under the lock.</summary>
    internal void Add(Network network, string vm)
    {
        network.Hold(vm);
        _held.Add((network, vm));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (gate)
        {
            _held.ForEach(h => h.Network.LetGo(h.Vm));
            _held.Clear();
        }
    }
}
