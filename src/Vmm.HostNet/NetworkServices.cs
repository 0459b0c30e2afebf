using System.Globalization;
using System.Net;
using System.Text;
using Vmm.Interop;

namespace Vmm.HostNet;

/// <summary>
/// dnsmasq(8) of a private network: DHCP, names, and router advertisements of IPv6. It is in a network namespace of its own behind a
/// port of the bridge, as a user of its own, so that it can do to the host what a guest on that bridge can; and no other server of the host
/// keeps its ports from it. It outlives vmmd: another one finds it by its user and a mark. The namespace and both ends of its interface go
/// with it.
/// </summary>
/// <param name="network">The network.</param>
/// <param name="folder">Folder of its files, made here; nothing else is in it.</param>
/// <param name="user">The user that it becomes.</param>
public sealed class NetworkServices(PrivateNetwork network, string folder, uint user) : IDisposable
{
    private const string Shell = "/bin/sh", Mark = "VMM_NETWORK", Answer = "\n";
    private const UnixFileMode Readable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode Folder = Readable | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
    private const int SigHup = 1;

    // In namespaces of its own (mounts are not seen outside). Its files are at /mnt there: the way to them is not everybody's. Of
    // capabilities it keeps those that dnsmasq asks for; they are good for this namespace. With IPv6 the namespace is the router that
    // dnsmasq advertises, which is always the one it runs on: it forwards to the bridge's link-local address, and by that tells a guest
    // with a redirect (RFC 4861 section 8) that the bridge is the better way. /proc is one whose settings are this namespace's, and can
    // be written where the host's cannot.
    private const string Script = """
        set -eu
        read -r go <&3
        exec 3<&-
        mount --bind "$1" /mnt
        mkdir -p /mnt/state
        chown "$2:$2" /mnt/state
        ip link set lo up
        ip link set lan0 addrgenmode none
        ip address add "$3" dev lan0
        if [ -n "$6" ]; then
            mount -t proc proc /proc
            echo 0 >/proc/sys/net/ipv6/conf/lan0/disable_ipv6
            echo 0 >/proc/sys/net/ipv6/conf/lan0/accept_ra
            [ -z "$8" ] || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            umount /proc
            ip address add "$6" dev lan0 nodad
            ip address add "$7" dev lan0 nodad
        fi
        ip link set lan0 up
        ip route add default via "$4"
        [ -z "$8" ] || ip -6 route add default via "$8" dev lan0
        caps=-all,+net_bind_service,+net_admin${6:+,+net_raw}
        exec setpriv --reuid="$2" --regid="$2" --clear-groups --no-new-privs --bounding-set="$caps" --inh-caps="$caps" \
            --ambient-caps="$caps" -- "$5" --conf-file=/mnt/dnsmasq.conf --user= --group=
        """;

    private ProcessHandle? _process;

    /// <summary>The network as it is to be the next time: without IPv6, or with it again.</summary>
    public PrivateNetwork Network { get; set; } = network;

    /// <summary>Its process; null: it does not run.</summary>
    public int? ProcessId => IsRunning ? _process!.ProcessId : null;

    /// <summary>It runs.</summary>
    public bool IsRunning => _process is { } process && process.Wait(0) is null;

    /// <summary>Writes its settings, then takes over one that runs with the same, or starts one.</summary>
    /// <param name="reserved">Addresses and names.</param>
    /// <returns>It was started.</returns>
    /// <exception cref="HostNetException">A program is not installed, or it does not start.</exception>
    public bool Ensure(IReadOnlyList<ReservedAddress> reserved)
    {
        HostProgram dnsmasq = HostProgram.Find("dnsmasq", "dnsmasq-base", "private networks", "/usr/sbin", "/usr/local/sbin");
        bool same = WriteSettings(reserved);
        if (!IsRunning)
        {
            _process?.Dispose();
            _process = Find();
        }

        if (IsRunning && same)
        {
            PrivateBridge.AttachServicePort(Network);
            Reload();
            return false;
        }

        Stop();
        Start(dnsmasq);
        return true;
    }

    /// <summary>Tells it of other addresses and names.</summary>
    public void Update(IReadOnlyList<ReservedAddress> reserved)
    {
        WriteHosts(reserved);
        if (IsRunning)
        {
            Reload();
        }
    }

    /// <summary>Writes the host's name servers as they are now; it looks at that file itself.</summary>
    public void UpdateServers()
    {
        if (!Network.Isolated)
        {
            WriteIfOther("resolv", string.Concat(HostResolvers.Find().Select(server => $"nameserver {server}\n")));
        }
    }

    /// <summary>Ends it, and removes its files.</summary>
    public void Remove()
    {
        Stop();
        if (Directory.Exists(folder))
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Lets go of it; it goes on.</summary>
    public void Dispose()
    {
        _process?.Dispose();
        _process = null;
    }

    /// <summary>Its settings.</summary>
    internal string Settings()
    {
        StringBuilder text = new();
        string[] lines =
        [
            "interface=lan0", "except-interface=lo", "bind-interfaces",
            // nothing of the host's own names
            "no-hosts", Network.Isolated ? "no-resolv" : "resolv-file=/mnt/resolv",
            "domain-needed", "bogus-priv", $"domain={PrivateNetwork.Domain}", $"local=/{PrivateNetwork.Domain}/", "addn-hosts=/mnt/hosts",
            "cache-size=1000", "dns-forward-max=150",
            // addresses for those that are known, and no others; nobody gives himself a name
            "dhcp-ignore-names", "dhcp-hostsfile=/mnt/dhcp", $"dhcp-range={Network.Subnet.Address(0)},static,{Mask()},24h",
            Network.Isolated ? "dhcp-option=option:router" : $"dhcp-option=option:router,{Network.Gateway}",
            .. Ipv6Settings(), "dhcp-authoritative", "no-ping", "quiet-dhcp", "dhcp-leasefile=/mnt/state/leases", "pid-file=",
        ];
        return text.AppendJoin('\n', lines).Append('\n').ToString();
    }

    // One address for a device that is known, by DHCPv6, and none that a guest makes itself: it would not be let by. An isolated network
    // has no router: lifetime 0, RFC 4861 section 6.2.3.
    private string[] Ipv6Settings() => Network.Ipv6 is not { } prefix ? [] :
    [
        "enable-ra", $"ra-param=lan0,600,{(Network.Isolated ? 0 : 1800)}", $"dhcp-range={prefix.Address(0)},static,{Ipv6Prefix.Length},24h",
        $"dhcp-option=option6:dns-server,[{Network.Server6}]", $"dhcp-option=option6:domain-search,{PrivateNetwork.Domain}",
    ];

    private string Mask()
    {
        byte[] mask = new byte[4];
        System.Buffers.Binary.BinaryPrimitives.WriteUInt32BigEndian(mask, Network.Subnet.Mask);
        return new IPAddress(mask).ToString();
    }

    private bool WriteSettings(IReadOnlyList<ReservedAddress> reserved)
    {
        Directory.CreateDirectory(folder, Folder);
        File.SetUnixFileMode(folder, Folder);
        WriteHosts(reserved);
        UpdateServers();
        return WriteIfOther("dnsmasq.conf", Settings());
    }

    private void WriteHosts(IReadOnlyList<ReservedAddress> reserved)
    {
        StringBuilder names = new(), leases = new();
        HashSet<string> told = new(StringComparer.Ordinal);
        foreach (ReservedAddress entry in reserved)
        {
            string name = entry.Name is { } own && told.Add(own) ? "," + own : "";
            string ipv6 = Network.Ipv6 is not null && entry.Ipv6 is { } own6 ? own6.ToString() : "";
            leases.Append(CultureInfo.InvariantCulture, $"{entry.Mac},{entry.Address}{(ipv6.Length > 0 ? $",[{ipv6}]" : "")}{name}\n");
            foreach (string address in entry.Name is null ? [] : (string[])[entry.Address.ToString(), ipv6])
            {
                names.Append(address.Length > 0 ? $"{address} {entry.Name}.{PrivateNetwork.Domain} {entry.Name}\n" : "");
            }
        }

        WriteIfOther("hosts", names.ToString());
        WriteIfOther("dhcp", leases.ToString());
    }

    // In place, by a rename: dnsmasq may be reading. True: it was so already.
    private bool WriteIfOther(string name, string text)
    {
        string path = Path.Combine(folder, name);
        if (File.Exists(path) && string.Equals(File.ReadAllText(path), text, StringComparison.Ordinal))
        {
            return true;
        }

        File.WriteAllText(path + ".new", text);
        File.SetUnixFileMode(path + ".new", Readable);
        File.Move(path + ".new", path, overwrite: true);
        return false;
    }

    private void Start(HostProgram dnsmasq)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        HostProgram shell = new(dnsmasq.Name, Shell)
        {
            Environment = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin",
                [Mark] = Network.Id,
            },
        };
        string[] words =
        [
            "-c", Script, "vmm-network", folder, user.ToString(CultureInfo.InvariantCulture),
            $"{Network.Server}/{Network.Subnet.Prefix}", Network.Gateway.ToString(), dnsmasq.Path,
            .. Network.Server6 is { } server ? (string[])
            [
                $"{server}/{Ipv6Prefix.Length}", $"{Ipv6Prefix.LinkLocal(Network.ServerMac)}/{Ipv6Prefix.Length}",
                Network.Isolated ? "" : Ipv6Prefix.LinkLocal(Network.BridgeMac).ToString(),
            ] : ["", "", ""],
        ];
        using (own)
        using (theirs)
        {
            shell.Run($"network {Network.Name}", words, [theirs], isolated: true, started: process =>
            {
                PrivateBridge.AddServicePort(Network, process);
                own.Send(Encoding.ASCII.GetBytes(Answer));
            });
        }

        _process = Find() ?? throw new HostNetException($"network {Network.Name}: dnsmasq ended as soon as it was started");
    }

    // By its user, which nobody else has, and its mark: nothing that it writes is read.
    private List<ProcessHandle> FindAll()
    {
        List<ProcessHandle> found = [];
        string owner = FormattableString.Invariant($"Uid:\t{user}\t"), mark = $"{Mark}={Network.Id}";
        foreach (string entry in Directory.EnumerateDirectories("/proc"))
        {
            ProcessHandle? process = null;
            try
            {
                if (!int.TryParse(Path.GetFileName(entry), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                    || !File.ReadLines(entry + "/status").Any(line => line.StartsWith(owner, StringComparison.Ordinal)))
                {
                    continue;
                }

                process = ProcessHandle.Open(number);
                if (File.ReadAllText(entry + "/environ").Split('\0').Contains(mark, StringComparer.Ordinal) && process.Wait(0) is null)
                {
                    found.Add(process);
                    process = null;
                }
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or KernelException)
            {
                // It has ended meanwhile.
            }
            finally
            {
                process?.Dispose();
            }
        }

        return found;
    }

    private ProcessHandle? Find()
    {
        List<ProcessHandle> found = FindAll();
        if (found.Count == 1)
        {
            return found[0];
        }

        found.ForEach(End); // one at most serves
        return null;
    }

    private static void End(ProcessHandle process)
    {
        process.Kill();
        process.Wait(5000);
        process.Dispose();
    }

    private void Reload()
    {
        try
        {
            _process!.Signal(SigHup);
        }
        catch (KernelException cause)
        {
            _ = cause; // it has ended, which is seen
        }
    }

    private void Stop()
    {
        if (_process is { } process)
        {
            End(process);
            _process = null;
        }

        FindAll().ForEach(End);
    }
}
