using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>
/// The rules of a private network, in a table of nftables of its own: nothing of the host's other rules changes, and what those drop stays
/// dropped.
/// </summary>
/// <param name="folder">Where the text of the rules is written.</param>
public sealed class NetworkRules(string folder)
{
    private readonly Lock _forwarding = new();

    private const string Need = "private networks", Guard = "vmm_forward", Forwarding = "/proc/sys/net/ipv4/ip_forward";

    /// <summary>Writes the rules of a network anew, in one step.</summary>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    public void Apply(PrivateNetwork network) => Load($"network {network.Name}", network.Table, Text(network));

    /// <summary>Whether the rules of a network are there.</summary>
    /// <exception cref="HostNetException">nft is not installed.</exception>
    public static bool AreThere(PrivateNetwork network) => IsThere(network.Table);

    /// <summary>Removes the rules of a network.</summary>
    /// <exception cref="HostNetException">nft is not installed, or refused.</exception>
    public static void Remove(PrivateNetwork network)
    {
        if (AreThere(network))
        {
            Nft().Run($"network {network.Name}", ["delete", "table", "inet", network.Table], []);
        }
    }

    /// <summary>
    /// Lets the host forward packets. When it did not, everything but the networks of vmmd stays as unforwarded as it was, by a table of
    /// its own, until <see cref="EndForwarding"/>.
    /// </summary>
    /// <returns>It was switched on now.</returns>
    /// <exception cref="HostNetException">It cannot be.</exception>
    public bool BeginForwarding()
    {
        lock (_forwarding)
        {
            return Begin();
        }
    }

    private bool Begin()
    {
        if (IsForwarding)
        {
            if (File.Exists(Mark) && !IsThere(Guard))
            {
                Load("forwarding", Guard, GuardText); // somebody flushed the rules
            }

            return false;
        }

        Load("forwarding", Guard, GuardText);
        File.WriteAllText(Mark, "");
        try
        {
            File.WriteAllText(Forwarding, "1");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            End();
            throw new HostNetException(
                $"this host does not forward packets, which NAT needs, and vmmd may not change that ({cause.Message}): run 'sysctl -w "
                    + "net.ipv4.ip_forward=1', or make the network with --isolated", cause);
        }

        return true;
    }

    /// <summary>No network leads anywhere any more: what was switched on by vmmd is switched off.</summary>
    /// <returns>It was.</returns>
    /// <exception cref="HostNetException">nft refused.</exception>
    public bool EndForwarding()
    {
        lock (_forwarding)
        {
            return End();
        }
    }

    private bool End()
    {
        if (!File.Exists(Mark))
        {
            return false;
        }

        try
        {
            File.WriteAllText(Forwarding, "0");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            _ = cause; // it was never switched on
        }

        if (IsThere(Guard))
        {
            Nft().Run("forwarding", ["delete", "table", "inet", Guard], []);
        }

        File.Delete(Mark);
        return true;
    }

    /// <summary>The rules as nft reads them.</summary>
    internal static string Text(PrivateNetwork network) => Replace(network.Table, $$"""
            chain input {
                type filter hook input priority filter; policy accept;
                iifname != "{{network.Bridge}}" accept
                ct state established,related accept
                ip saddr {{network.Subnet}} ip daddr {{network.Gateway}} icmp type echo-request accept
                drop
            }
            chain forward {
                type filter hook forward priority filter; policy accept;
                iifname "{{network.Bridge}}" oifname "{{network.Bridge}}" accept
                iifname "{{network.Bridge}}" {{(network.Isolated ? "drop" : $"ip saddr != {network.Subnet} drop")}}
                iifname "{{network.Bridge}}" meta nfproto != ipv4 drop
                oifname "{{network.Bridge}}" ct state established,related accept
                oifname "{{network.Bridge}}" drop
            }

        """ + (network.Isolated ? "" : $$"""
            chain nat {
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {{network.Subnet}} oifname != "{{network.Bridge}}" masquerade
            }

        """));

    // Frames that go through a bridge come here too, where br_netfilter is in use.
    private static string GuardText => Replace(Guard, $$"""
            chain forward {
                type filter hook forward priority filter; policy accept;
                iifname "{{PrivateNetwork.BridgePrefix}}*" accept
                oifname "{{PrivateNetwork.BridgePrefix}}*" accept
                meta iifkind "bridge" meta oifkind "bridge" accept
                meta nfproto ipv4 drop
            }

        """);

    // In the folder that a boot of the host empties, as the kernel forgets the setting.
    private string Mark => Path.Combine(folder, "forwarding");

    /// <summary>The host forwards packets.</summary>
    public static bool IsForwarding => File.ReadAllText(Forwarding).Trim() is not "0";

    private static string Replace(string table, string chains) =>
        $"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{chains}}}\n";

    private void Load(string what, string table, string text)
    {
        string file = Path.Combine(folder, table + ".nft");
        File.WriteAllText(file, text);
        try
        {
            Nft().Run(what, ["-f", file], []);
        }
        finally
        {
            File.Delete(file);
        }
    }

    private static bool IsThere(string table)
    {
        HostProgram nft = Nft();
        try
        {
            nft.Run(Need, ["list", "table", "inet", table], []);
            return true;
        }
        catch (HostNetException)
        {
            return false;
        }
    }

    private static HostProgram Nft() =>
        HostProgram.Find("nft", "nftables", Need, "/usr/sbin", "/sbin", "/usr/bin") with { Failure = "refuses" };
}
