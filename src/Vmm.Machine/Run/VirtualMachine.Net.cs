using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Spec;

namespace Vmm.Machine.Run;

/// <content>Network devices, and the rate limits of all devices that have them.</content>
public sealed partial class VirtualMachine
{
    private readonly List<VirtioBlk> _diskDevices = [];
    private List<VirtioNet>? _netDevices; // made by the first one: the usual start does not load the type

    /// <summary>Limits a disk (<c>disk0</c>) or network device (<c>net0</c>) from now on; null is no limit. Any thread.</summary>
    /// <exception cref="ArgumentException">There is no such device, or the limit is out of range.</exception>
    public void SetLimit(string device, RateLimit? limit)
    {
        foreach (VirtioBlk disk in _diskDevices)
        {
            if (string.Equals(disk.Name, device, StringComparison.Ordinal))
            {
                disk.SetLimit(limit);
                return;
            }
        }

        foreach (VirtioNet net in _netDevices ?? [])
        {
            if (string.Equals(net.Name, device, StringComparison.Ordinal))
            {
                net.SetLimit(limit);
                return;
            }
        }

        throw new ArgumentException($"{_spec.Name} has no device {device} with limits", nameof(device));
    }

    private NetCounters[] NetCountersNow()
    {
        NetCounters[] counters = new NetCounters[_netDevices?.Count ?? 0];
        for (int i = 0; i < counters.Length; i++)
        {
            counters[i] = _netDevices![i].Counters;
        }

        return counters;
    }

    private void BuildNets(VirtioSlots slots, IReadOnlyList<Layout.VnodeHome> homes)
    {
        for (int i = 0; i < _spec.Nets.Count; i++)
        {
            BuildNet(slots, i, _spec.Nets[i], homes[0].HostCpus);
        }
    }

    /// <summary>Makes one network device and plugs it in.</summary>
    private void BuildNet(VirtioSlots slots, int index, NetSpec net, IReadOnlyList<int> cpus)
    {
        byte[] mac = new byte[6];
        if (net.Mac is null || !MacAddress.TryParse(net.Mac, mac))
        {
            mac = MacAddress.Default(_spec.Name, index);
        }

        VirtioNetOptions options = new()
        {
            Name = $"net{index}",
            Mac = mac,
            Mtu = net.Mtu ?? Math.Min(TapQueue.MtuOf(net.Tap), ushort.MaxValue),
            Limit = net.Limits?.Rate,
            ThreadStarted = cpus.Count > 0 ? _ => ThreadPlacement.PinCurrent(cpus) : null,
        };
        INetBackend backend = _resources.OpenNet(index, net);
        VirtioNet device;
        try
        {
            device = new VirtioNet(backend, options);
        }
        catch
        {
            backend.Dispose();
            throw;
        }

        (_netDevices ??= []).Add(device);
        slots.Attach(options.Name, device, net.Transport ?? _spec.VirtioTransport);
    }
}
