using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Build;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Machine.Kinds;

/// <summary>Network devices: <c>nets</c>.</summary>
internal static class NetKind
{
    internal const string Name = "net";

    internal static readonly DeviceKind Kind = new()
    {
        Name = Name,
        Section = "nets",
        ComesAndGoes = true,
        Plan = spec => spec.Nets.Select((net, i) => new DevicePlan(IdOf(i), net.Transport ?? spec.VirtioTransport, net.Vnode)),
        Build = setup =>
        {
            NetSpec net = PagingValidation.Paged(setup.Board.IsPaged, setup.Spec.Nets[setup.Index]);
            return Make(setup.Board, setup.Description.Id, net, setup.Board.Resources.OpenNet(setup.Index, net));
        },
    };

    /// <summary>Name of the network device of that number, counted from the start of the machine.</summary>
    internal static string IdOf(int number) => $"net{number}";

    /// <summary>The device in front of an opened tap, which is closed when that fails.</summary>
    internal static VirtioNet Make(Board board, string id, NetSpec net, INetBackend backend)
    {
        byte[] mac = new byte[6];
        if (net.Mac is null || !MacAddress.TryParse(net.Mac, mac))
        {
            mac = MacAddress.Default(
                board.Spec.Name, int.Parse(id.AsSpan("net".Length), System.Globalization.CultureInfo.InvariantCulture));
        }

        VirtioNetOptions options = new()
        {
            Name = id,
            Mac = mac,
            Mtu = net.Mtu ?? (net.User is not null ? UserNetSpec.MostMtu
                : Math.Min(TapQueue.MtuOf(net.Bridge ?? net.Macvtap ?? net.Tap), ushort.MaxValue)),
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
