using Vmm.Contracts.Control;
using Vmm.Daemon.Networks;
using Vmm.HostNet;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>Devices of VMs on private networks: their addresses come with them and go with them.</summary>
/// <param name="store">The networks; null: there are none.</param>
/// <param name="all">All VMs.</param>
internal sealed class VmNetworks(NetworkStore? store, Func<ICollection<ManagedVm>> all)
{
    /// <summary>VMs that use a network; one whose spec cannot be read counts when its text has the name.</summary>
    internal IReadOnlyList<string> UsersOf(string network) =>
        [.. all().Where(vm => vm.Devices.UsesNetwork(network)).Select(vm => vm.Record.Name)];

    /// <summary>The addresses of a VM.</summary>
    internal IReadOnlyList<string> AddressesOf(string vm) => store?.AddressesOf(vm) ?? [];

    /// <summary>Changes a VM; what its devices need is reserved meanwhile, and given back when it has not come to need it.</summary>
    /// <param name="spec">What it needs.</param>
    /// <param name="after">What it needs afterwards, whatever became of the change; null: there is no such VM.</param>
    /// <param name="change">The change.</param>
    /// <param name="part">What a problem's path may begin with, and does not in the answer.</param>
    /// <exception cref="ApiException">A network is not there, or has not what a device wants.</exception>
    internal async Task<T> ReserveAsync<T>(VmSpec spec, Func<VmSpec?> after, Func<Task<T>> change, string part = "")
    {
        if (store is null)
        {
            return await change().ConfigureAwait(false);
        }

        try
        {
            using IDisposable held = await store.HoldAsync(spec, part).ConfigureAwait(false);
            return await change().ConfigureAwait(false);
        }
        finally
        {
            await store.KeepAsync(spec.Name, after()).ConfigureAwait(false);
        }
    }

    /// <summary>A VM is no more.</summary>
    internal Task ForgetAsync(string vm) => store?.KeepAsync(vm, null) ?? Task.CompletedTask;

    /// <summary>Adds a network device to a VM.</summary>
    /// <exception cref="ApiException">It cannot be added.</exception>
    internal Task<DeviceInfo> AttachAsync(ManagedVm vm, NetSpec net, bool stay, long? revision, CancellationToken cancellation)
    {
        string name = vm.Record.Name;
        if (net.Network is null && net.Macvtap is null)
        {
            return vm.Devices.AttachAsync(net, stay, revision, cancellation);
        }

        // Its place in this run is the worker's to say, and may be another in the next: the address is to stay.
        NetSpec placed = net with { Mac = net.Mac ?? FreeMac(vm) };
        if (net.Network is null)
        {
            return vm.Devices.AttachAsync(placed, stay, revision, cancellation);
        }

        VmSpec Known() => new() { Name = name, Nets = vm.Devices.KnownNets() };
        return ReserveAsync(
            new VmSpec { Name = name, Nets = [placed] }, Known,
            () => vm.Devices.AttachAsync(placed, stay, revision, cancellation), "nets[0].");
    }

    /// <summary>A device of a network as one on its bridge.</summary>
    /// <param name="vmId">Id of the VM.</param>
    /// <param name="net">The device.</param>
    /// <param name="index">Its place.</param>
    /// <exception cref="HostNetException">The network is not there, or not up.</exception>
    internal (NetSpec Net, PrivateNetwork Network) Resolve(string vmId, NetSpec net, int index)
    {
        string name = all().FirstOrDefault(vm => string.Equals(vm.Record.Id, vmId, StringComparison.Ordinal))?.Record.Name
            ?? throw new HostNetException("there is no such VM");
        return (store ?? throw new HostNetException("there are no private networks")).Resolve(name, net, index);
    }

    private static string FreeMac(ManagedVm vm)
    {
        IReadOnlyList<NetSpec> known = vm.Devices.KnownNets();
        HashSet<string> taken = [.. known.Select((net, i) => MacAddress.Of(net, vm.Record.Name, i))];
        int place = known.Count;
        while (taken.Contains(MacAddress.Text(MacAddress.Default(vm.Record.Name, place))))
        {
            place++;
        }

        return MacAddress.Text(MacAddress.Default(vm.Record.Name, place));
    }
}
