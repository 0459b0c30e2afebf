using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>MTUs of the interfaces behind network devices: a worker may see no network interfaces.</summary>
internal static class NetMtus
{
    /// <summary>The spec with the MTU of each tap in it.</summary>
    internal static VmSpec In(VmSpec spec) => spec.Nets.Count == 0 ? spec : spec with { Nets = [.. spec.Nets.Select(In)] };

    /// <summary>The network device with its tap's MTU.</summary>
    internal static NetSpec In(NetSpec net) =>
        net.User is not null ? net
            : net.Network is not null ? net with { Mtu = net.Mtu ?? NetSpec.NetworkMtu }
            : net with
            {
                Mtu = net.Mtu ?? (TapQueue.MtuOf(net.Bridge ?? net.Macvtap ?? net.Tap) is >= 68 and <= ushort.MaxValue and var mtu
                    ? mtu : null),
            };
}
