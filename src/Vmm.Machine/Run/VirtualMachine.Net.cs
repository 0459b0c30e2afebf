using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Hotplug;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <content>Network devices, and the rate limits of all devices that have them.</content>
public sealed partial class VirtualMachine
{
    /// <summary>Limits a disk (<c>disk0</c>) or network device (<c>net0</c>) from now on; null is no limit. Any thread.</summary>
    /// <exception cref="ArgumentException">There is no such device, or the limit is out of range.</exception>
    public void SetLimit(string device, RateLimit? limit)
    {
        foreach (Pluggable candidate in Volatile.Read(ref _devices))
        {
            if (string.Equals(candidate.Name, device, StringComparison.Ordinal))
            {
                candidate.Disk?.SetLimit(limit);
                candidate.Net?.SetLimit(limit);
                return;
            }
        }

        throw new ArgumentException($"{_spec.Name} has no device {device} with limits", nameof(device));
    }

    private List<DiskCounters> DiskCountersNow()
    {
        List<DiskCounters> counters = [];
        foreach (Pluggable device in Volatile.Read(ref _devices))
        {
            if (device.Disk is { } disk)
            {
                counters.Add(new DiskCounters(device.Name, disk.Counters));
            }
        }

        return counters;
    }

    private List<NetDeviceCounters> NetCountersNow()
    {
        List<NetDeviceCounters> counters = [];
        foreach (Pluggable device in Volatile.Read(ref _devices))
        {
            if (device.Net is { } net)
            {
                counters.Add(new NetDeviceCounters(device.Name, net.Counters, net.InKernel ? device.NetSpec?.Tap : null));
            }
        }

        return counters;
    }

    private void BuildNets(VirtioSlots slots)
    {
        for (int i = 0; i < _spec.Nets.Count; i++)
        {
            NetSpec net = _spec.Nets[i];
            VirtioNet device = MakeNet(_netsEver++, net, _resources.OpenNet(i, net));
            Record(new Pluggable(device.Name, slots.Attach(device.Name, device, net.Transport ?? _spec.VirtioTransport), net, device));
        }
    }

    /// <summary>The device in front of an opened tap, which is closed when that fails.</summary>
    private VirtioNet MakeNet(int index, NetSpec net, INetBackend backend)
    {
        PlaceNear($"net{index}", net.Vnode);
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
            Limit = net.Limits is { } limits ? RateLimits.Of(limits) : null,
        };
        try
        {
            return new VirtioNet(backend, options);
        }
        catch
        {
            backend.Dispose();
            throw;
        }
    }
}
