using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>
/// The host's forwarding of packets of one family, a setting of the whole host. When vmmd switches it on, everything but its networks stays
/// as unforwarded as it was, by a table of nftables, until it is switched off again.
/// </summary>
internal sealed class HostForwarding
{
    private const string Ipv4File = "/proc/sys/net/ipv4/ip_forward", All = "all", Forwarding = "forwarding";

    private readonly Lock _gate = new();
    private readonly NftTables _tables;
    private readonly bool _ipv6;
    private readonly string _guard, _mark, _family;

    /// <param name="ipv6">Of IPv6; else of IPv4.</param>
    /// <param name="folder">A folder that a boot of the host empties, as the kernel forgets the setting.</param>
    internal HostForwarding(bool ipv6, string folder)
    {
        _tables = new NftTables(folder);
        _ipv6 = ipv6;
        (_guard, _mark, _family) = ipv6 ? ("vmm_forward6", "forwarding6", "ipv6") : ("vmm_forward", "forwarding", "ipv4");
        _mark = Path.Combine(folder, _mark);
    }

    /// <summary>The setting's name.</summary>
    internal string Setting => _ipv6 ? "net.ipv6.conf.all.forwarding" : "net.ipv4.ip_forward";

    /// <summary>The host forwards.</summary>
    internal bool IsOn => _ipv6 ? HostIpv6.Read(All, Forwarding) is not (null or "0") : File.ReadAllText(Ipv4File).Trim() is not "0";

    /// <summary>Lets the host forward packets.</summary>
    /// <returns>It was switched on now.</returns>
    /// <exception cref="HostNetException">It cannot be.</exception>
    internal bool Begin()
    {
        lock (_gate)
        {
            if (IsOn)
            {
                if (File.Exists(_mark) && !NftTables.IsThere(_guard))
                {
                    _tables.Load("forwarding", _guard, GuardText); // somebody flushed the rules
                }

                return false;
            }

            _tables.Load("forwarding", _guard, GuardText);
            File.WriteAllText(_mark, "");
            try
            {
                Set("1");
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                EndNow();
                throw new HostNetException($"this host does not forward {(_ipv6 ? "IPv6 " : "")}packets, which NAT needs, and vmmd may not "
                    + $"change that ({cause.Message}): run 'sysctl -w {Setting}=1', or make the network with --isolated"
                    + (_ipv6 ? " or --ipv6 none" : ""), cause);
            }

            return true;
        }
    }

    /// <summary>No network leads anywhere any more: what was switched on by vmmd is switched off.</summary>
    /// <returns>It was.</returns>
    /// <exception cref="HostNetException">nft refused.</exception>
    internal bool End()
    {
        lock (_gate)
        {
            return File.Exists(_mark) && EndNow();
        }
    }

    private bool EndNow()
    {
        try
        {
            Set("0");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            _ = cause; // it was never switched on
        }

        NftTables.Remove("forwarding", _guard);
        File.Delete(_mark);
        return true;
    }

    private void Set(string value)
    {
        if (_ipv6)
        {
            HostIpv6.SetForwarding(All, value);
        }
        else
        {
            File.WriteAllText(Ipv4File, value);
        }
    }

    // Frames that go through a bridge come here too, where br_netfilter is in use.
    private string GuardText => $$"""
            chain forward {
                type filter hook forward priority filter; policy accept;
                iifname "{{PrivateNetwork.BridgePrefix}}*" accept
                oifname "{{PrivateNetwork.BridgePrefix}}*" accept
                meta iifkind "bridge" meta oifkind "bridge" accept
                meta nfproto {{_family}} drop
            }

        """;
}
