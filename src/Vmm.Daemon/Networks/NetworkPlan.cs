using Vmm.Daemon.Vms;
using Vmm.HostNet;
using Vmm.Spec;

namespace Vmm.Daemon.Networks;

/// <summary>What a new network can have that is nobody else's.</summary>
/// <param name="host">The host.</param>
/// <param name="networks">The networks that there are.</param>
internal sealed class NetworkPlan(INetworkHost host, IReadOnlyList<PrivateNetwork> networks)
{
    private const int LeastPrefix = 16, MostPrefix = 29;

    /// <summary>Looks at the name of a new network.</summary>
    /// <exception cref="ApiException">It is none.</exception>
    internal static void RequireName(string name)
    {
        if (!NetSpec.IsNetworkName(name))
        {
            throw Invalid("name: expected 1 to 64 letters, digits, . _ -, beginning with a letter or digit");
        }
    }

    /// <summary>The range of a new network: the one that is wished for, or one that nothing uses.</summary>
    /// <exception cref="ApiException">It is none, or in use.</exception>
    internal Ipv4Subnet SubnetOf(string? wish)
    {
        List<(Ipv4Subnet Subnet, string By)> used =
            [.. networks.Select(n => (n.Subnet, $"the network {n.Name}")), .. host.Used(except: null)];
        if (wish is null)
        {
            return HostSubnets.Choose(used) ?? throw Invalid("subnet: no range that is usual for this is free: name one");
        }

        if (!Ipv4Subnet.TryParse(wish, out Ipv4Subnet subnet, out string problem))
        {
            throw Invalid($"subnet: {(wish.Length > 64 ? wish[..64] : wish)} {problem}");
        }

        if (subnet.Prefix is < LeastPrefix or > MostPrefix || subnet.First >> 24 is 0 or 127 or >= 224)
        {
            throw Invalid($"subnet: {subnet}: expected /{LeastPrefix} to /{MostPrefix}, of addresses that a host can have");
        }

        return used.Find(u => u.Subnet.Overlaps(subnet)) is { By: not null } other
            ? throw new ApiException(409, "subnet-taken", "the range is in use",
                $"{subnet} overlaps {other.Subnet} of {other.By}: name another, or none to have one chosen")
            : subnet;
    }

    /// <summary>The IPv6 range of a network: the one that is wished for, a new one (<c>auto</c>), or none.</summary>
    /// <param name="wish">The wish.</param>
    /// <exception cref="ApiException">It is none, or in use.</exception>
    internal Ipv6Prefix? Ipv6Of(string? wish)
    {
        switch (wish)
        {
            case null or "none": // who wants IPv6 says so: what a guest reaches by it is not what it reached before
                return null;
            case "auto":
                Ipv6Prefix made;
                do
                {
                    made = Ipv6Prefix.NewLocal();
                }
                while (UserOf(made) is not null);
                return made;
        }

        return !Ipv6Prefix.TryParse(wish, out Ipv6Prefix prefix, out string problem)
                ? throw Invalid($"ipv6: {(wish.Length > 64 ? wish[..64] : wish)} {problem}, auto, or none")
            : UserOf(prefix) is { } other
                ? throw new ApiException(409, "subnet-taken", "the range is in use",
                    $"{prefix} is one of {other}: name another, or auto to have one made")
            : prefix;
    }

    /// <summary>What the IPv6 range of a network becomes.</summary>
    /// <exception cref="ApiException">It is none, or in use.</exception>
    internal Ipv6Prefix? ChangeOf(PrivateNetwork network, string wish) => wish switch
    {
        "auto" when network.Ipv6 is { } own => own,
        _ when network.Ipv6 is { } own && string.Equals(own.ToString(), wish, StringComparison.Ordinal) => own,
        _ => Ipv6Of(wish),
    };

    private string? UserOf(Ipv6Prefix prefix) =>
        networks.FirstOrDefault(n => n.Ipv6 == prefix) is { } network ? $"the network {network.Name}" : host.UserOf(prefix);

    /// <summary>A number whose bridge is not there, and no network's.</summary>
    internal int FreeNumber()
    {
        HashSet<int> taken = [.. networks.Select(n => n.Number)];
        int number = 0;
        while (taken.Contains(number) || !host.IsFree(number))
        {
            number++;
        }

        return number;
    }

    private static ApiException Invalid(string what) => new(422, "network-invalid", "such a network cannot be made", what);
}
