using System.Globalization;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.HostNet;

/// <summary>
/// Makes macvtap interfaces: a VM on the network of a card of the host, without a bridge. The kernel leaves one behind when nobody has it
/// open: its alias says whose it is, and <see cref="Sweep"/> removes those that nobody needs.
/// </summary>
public static class Macvtap
{
    private const ushort NewLink = 16, DelLink = 17;
    private const ushort Address = 1, Name = 3, Link = 5, LinkInfo = 18, Alias = 20, Kind = 1, Data = 2, Mode = 1;
    private const string Interfaces = "/sys/class/net", Own = "macvtap";
    private const int MostNames = 4096;

    /// <summary>Makes one, and opens its queues.</summary>
    /// <param name="net">The network device, which has a macvtap and a MAC address.</param>
    /// <param name="owner">Who it belongs to: the text that becomes the interface's alias.</param>
    /// <returns>Its queues; the caller owns them.</returns>
    /// <exception cref="HostNetException">The card is not there, or the kernel refused.</exception>
    public static IReadOnlyList<TapQueue> Open(NetSpec net, string owner)
    {
        byte[] mac = new byte[6];
        if (!MacAddress.TryParse(net.Mac ?? "", mac))
        {
            throw new HostNetException($"macvtap on {net.Macvtap}: needs the device's mac");
        }

        List<TapQueue> queues = [];
        using RouteSocket route = new();
        InterfaceFacts card = route.Find(net.Macvtap!) ?? throw new HostNetException(
            $"{net.Macvtap} does not exist: 'ip -br link' shows the interfaces that do");
        string name = Make(route, net, card, mac, owner);
        try
        {
            int index = (route.Find(name) ?? throw new HostNetException($"macvtap on {net.Macvtap}: {name} is gone again")).Index;
            while (queues.Count < net.Queues)
            {
                queues.Add(OpenQueue(net, name, index));
            }

            Do(route, net, RouteMessage.Link(NewLink, index, flags: 1 /* IFF_UP */), "switch it on");
            return queues;
        }
        catch (Exception cause)
        {
            queues.ForEach(queue => queue.Dispose());
            Remove(route, name);
            throw cause is TapException or KernelException
                ? new HostNetException($"macvtap on {net.Macvtap}: {cause.Message}", cause)
                : cause;
        }
    }

    /// <summary>Removes the macvtaps of an owner that are not in use.</summary>
    /// <param name="owner">The alias they were made with.</param>
    /// <param name="isHeld">Whether the device of one, <c>/dev/tapN</c>, is open somewhere that counts.</param>
    public static void Sweep(string owner, Func<string, bool> isHeld)
    {
        foreach (string path in Directory.EnumerateFileSystemEntries(Interfaces))
        {
            try
            {
                if (Directory.Exists(Path.Combine(path, Own))
                    && string.Equals(File.ReadAllText(Path.Combine(path, "ifalias")).Trim(), owner, StringComparison.Ordinal)
                    && !isHeld(DeviceOf(int.Parse(File.ReadAllText(Path.Combine(path, "ifindex")), CultureInfo.InvariantCulture))))
                {
                    using RouteSocket route = new();
                    Remove(route, Path.GetFileName(path));
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or FormatException or KernelException)
            {
                // Gone meanwhile.
            }
        }
    }

    private static string Make(RouteSocket route, NetSpec net, InterfaceFacts card, byte[] mac, string owner)
    {
        uint mode = net.Mode switch
        {
            MacvtapMode.Private => 1,
            MacvtapMode.Vepa => 2,
            MacvtapMode.Passthru => 8,
            _ => 4, // MACVLAN_MODE_BRIDGE
        };
        for (int number = 0; number < MostNames; number++)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"vmmtap{number}");
            int errno = route.Do(RouteMessage.Link(NewLink, 0, create: true).Add(Name, name).Add(Link, (uint)card.Index).Add(Address, mac)
                .Add(LinkInfo, m => m.Add(Kind, Own).Add(Data, d => d.Add(Mode, mode))));
            if (errno == Errno.EEXIST)
            {
                continue;
            }

            Require(net, errno, "make it");
            InterfaceFacts made = route.Find(name) ?? throw new HostNetException($"macvtap on {net.Macvtap}: {name} is gone again");
            Do(route, net, RouteMessage.Link(NewLink, made.Index).Add(Alias, owner), "name it");
            // No address of the host's own on it; a kernel without IPv6 has none.
            _ = route.Do(RouteMessage.Link(NewLink, made.Index).Add(26, m => m.Add(10, v6 => v6.Add(8, (ReadOnlySpan<byte>)[1]))));
            return name;
        }

        throw new HostNetException($"macvtap on {net.Macvtap}: there are {MostNames} macvtaps already");
    }

    // The number of the device is that of the interface in its namespace: what was opened is asked whether it is that one.
    private static TapQueue OpenQueue(NetSpec net, string name, int index)
    {
        string device = DeviceOf(index);
        if (!File.Exists(device))
        {
            throw new HostNetException($"macvtap on {net.Macvtap}: {device} does not exist: is /dev a devtmpfs?");
        }

        TapQueue queue = TapQueue.OpenDevice(device);
        if (!string.Equals(queue.Name, name, StringComparison.Ordinal))
        {
            queue.Dispose();
            throw new HostNetException($"macvtap on {net.Macvtap}: {device} is that of {queue.Name}, of another network namespace");
        }

        return queue;
    }

    private static string DeviceOf(int index) => string.Create(CultureInfo.InvariantCulture, $"/dev/tap{index}");

    private static void Remove(RouteSocket route, string name)
    {
        if (route.Find(name) is { Kind: Own } found)
        {
            _ = route.Do(RouteMessage.Link(DelLink, found.Index));
        }
    }

    private static void Do(RouteSocket route, NetSpec net, RouteMessage message, string what) => Require(net, route.Do(message), what);

    private static void Require(NetSpec net, int errno, string what)
    {
        if (errno != 0)
        {
            throw new HostNetException($"macvtap on {net.Macvtap}: " + errno switch
            {
                Errno.EOPNOTSUPP => "the kernel has none: 'modprobe macvtap'",
                Errno.EBUSY => $"{net.Macvtap} is a port of a bridge, or has a macvtap or macvlan in another mode",
                Errno.EPERM or Errno.EACCES => "not permitted: it needs CAP_NET_ADMIN; without it there is --net user",
                Errno.EINVAL => $"{net.Macvtap} cannot carry one: it wants an Ethernet interface that is no macvtap itself, and a free one "
                    + "for mode passthru",
                Errno.EADDRINUSE => $"{net.Mac} is the address of {net.Macvtap}, or of another macvtap on it",
                _ => new KernelException(what, errno).Message,
            });
        }
    }
}
