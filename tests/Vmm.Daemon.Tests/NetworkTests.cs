using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Networks;
using Vmm.HostNet;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Private networks as the daemon keeps them: names, ranges, addresses and users. What they are made of is another test's.
/// </summary>
public sealed class NetworkTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_network_comes_gives_addresses_and_goes()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        Problem missing = await DaemonFixture.RefusedAsync(() => daemon.CreateAsync("web", "nets: [{network: lan}]\n"));
        Assert.Equal((422, "spec-invalid"), (missing.Status, missing.Code));
        Assert.Equal("nets[0].network", Assert.Single(missing.Errors!).Field);
        Assert.Contains("'vmmctl network create lan' makes one", missing.Detail, StringComparison.Ordinal);
        NetworkInfo made = await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/29", Ipv6: "none"), s_none);
        Assert.Equal(
            ("up", "10.1.2.0/29", "10.1.2.1", "10.1.2.2", "vmmbr1"), (made.State, made.Subnet, made.Gateway, made.Server, made.Bridge));
        Assert.True(daemon.Networks.Forwards);

        VmInfo web = await daemon.CreateAsync("web", "nets: [{network: lan}, {network: lan, mac: \"52:54:00:AA:00:01\"}]\n");
        Assert.Equal(["10.1.2.3", "10.1.2.4"], web.Addresses);
        VmInfo named = await daemon.CreateAsync("Web.Two", "nets: [{network: lan, addresses: [10.1.2.6]}]\n");
        Assert.Equal(["10.1.2.6"], named.Addresses);
        Assert.Equal(["10.1.2.6"], (await daemon.Client.ListAsync(s_none)).Vms.Single(vm => vm.Name == "Web.Two").Addresses);
        NetworkInfo shown = await daemon.Client.NetworkAsync("lan", s_none);
        Assert.Equal(["Web.Two", "web"], shown.UsedBy);
        Assert.Equal(new NetworkAddress("web", "52:54:00:aa:00:01", "10.1.2.4", "web"), shown.Addresses[1]);
        Assert.Equal("web-two", shown.Addresses[2].HostName);
        Assert.Equal(3, daemon.Networks.There["lan"].Reserved.Count);

        Problem used = await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteNetworkAsync("lan", s_none));
        Assert.Equal((409, "network-in-use"), (used.Status, used.Code));
        Assert.Contains("Web.Two, web", used.Detail, StringComparison.Ordinal);
        await daemon.Client.DeleteAsync("web", s_none);
        await daemon.Client.DeleteAsync("Web.Two", s_none);
        Assert.Empty((await daemon.Client.NetworkAsync("lan", s_none)).Addresses);
        await daemon.Client.DeleteNetworkAsync("lan", s_none);
        Assert.Empty(daemon.Networks.There);
        Assert.False(daemon.Networks.Forwards);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.NetworksFolder));
    }

    [Fact]
    public async Task What_another_has_is_refused_by_its_name_and_nothing_stays_reserved()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/29", Ipv6: "none"), s_none);
        await daemon.CreateAsync("a", "nets: [{network: lan, mac: \"52:54:00:00:00:01\"}]\n");
        foreach ((string nets, string field, string why) in new[]
        {
            ("{network: lan, mac: \"52:54:00:00:00:01\"}", "nets[0].mac", "is that of a on network lan"),
            ("{network: lan, addresses: [10.1.2.3]}", "nets[0].addresses", "10.1.2.3 is reserved for a"),
            ("{network: lan, addresses: [10.1.2.2]}", "nets[0].addresses", "10.1.2.3 to 10.1.2.6"),
            ("{network: lan, addresses: [10.1.2.7]}", "nets[0].addresses", "is not one that a VM can have"),
            ("{network: lan, addresses: [10.1.3.4]}", "nets[0].addresses", "is not one that a VM can have"),
            ("{network: lan}, {network: lan, mac: \"52:54:00:00:00:02\"}, {network: lan, mac: \"52:54:00:00:00:03\"}, "
                + "{network: lan, mac: \"52:54:00:00:00:04\"}", "nets[3].addresses", "all 4 addresses of network lan are reserved"),
        })
        {
            Problem problem = await DaemonFixture.RefusedAsync(() => daemon.CreateAsync("b", $"nets: [{nets}]\n"));
            Assert.Equal(field, Assert.Single(problem.Errors!).Field);
            Assert.Contains(why, problem.Detail, StringComparison.Ordinal);
            Assert.Equal("a", Assert.Single((await daemon.Client.NetworkAsync("lan", s_none)).Addresses).Vm);
        }
    }

    [Fact]
    public async Task An_address_stays_over_restarts_of_VM_and_daemon_and_goes_when_the_spec_does_without()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "none"), s_none);
        await daemon.CreateAsync("a", "nets: [{network: lan}]\n");
        await daemon.CreateAsync("b", "nets:\n- network: lan\n");
        await daemon.Client.DeleteAsync("a", s_none);
        await daemon.RestartAsync();
        Assert.Equal(["10.1.2.4"], (await daemon.Client.ShowAsync("b", s_none)).Addresses);
        Assert.Equal("up", (await daemon.Client.NetworkAsync("lan", s_none)).State);

        DeviceInfo added = await daemon.Client.AttachAsync("b", "nets", "{network: lan}", true, s_none);
        Assert.StartsWith("network:lan/52:54:00:", added.Source, StringComparison.Ordinal);
        Assert.Equal(["10.1.2.4", "10.1.2.3"], (await daemon.Client.ShowAsync("b", s_none)).Addresses);
        await daemon.Client.ReplaceAsync("b", daemon.Yaml("b"), daemon.Folder, null, s_none);
        Assert.Null((await daemon.Client.ShowAsync("b", s_none)).Addresses);
        await daemon.Client.DeleteNetworkAsync("lan", s_none);
    }

    [Fact]
    public async Task A_network_that_cannot_be_made_leaves_nothing_and_one_that_breaks_is_made_again()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        daemon.Networks.Refuses = "needs the program dnsmasq, which is not installed: 'apt install dnsmasq-base'";
        // what was begun cannot be removed either
        Problem failed = await DaemonFixture.RefusedAsync(() => daemon.Client.CreateNetworkAsync(new NetworkRequest("lan"), s_none));
        Assert.Equal((502, "network-failed"), (failed.Status, failed.Code));
        Assert.Contains("apt install dnsmasq-base", failed.Detail, StringComparison.Ordinal);
        Assert.Empty((await daemon.Client.NetworksAsync(s_none)).Networks);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.NetworksFolder));
        daemon.Networks.Refuses = null;

        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan"), s_none);
        FakeNetworks.FakeNetwork lan = daemon.Networks.There["lan"];
        lan.Missing = "its dnsmasq was gone";
        await DaemonFixture.UntilAsync(() => lan.Made == 2);
        daemon.Networks.Refuses = "the kernel has had enough";
        lan.Missing = "its bridge was gone";
        await DaemonFixture.UntilAsync(() => daemon.Client.NetworkAsync("lan", s_none).GetAwaiter().GetResult().State == "failed");
        Assert.Contains("had enough", (await daemon.Client.NetworkAsync("lan", s_none)).Problem, StringComparison.Ordinal);
        Assert.Equal(502, (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteNetworkAsync("lan", s_none))).Status);
        daemon.Networks.Refuses = null;
        await DaemonFixture.UntilAsync(() => daemon.Client.NetworkAsync("lan", s_none).GetAwaiter().GetResult().State == "up");
        await daemon.Client.DeleteNetworkAsync("lan", s_none);
        Assert.Empty(daemon.Networks.There);
    }

    [Fact]
    public async Task A_stored_network_that_cannot_be_read_keeps_its_name_and_nobody_from_starting()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan"), s_none);
        string file = Path.Combine(daemon.Options.NetworksFolder, "lan.json");
        foreach (string bad in new[] { "", "{", "null", "{}", File.ReadAllText(file).Replace("10.", "x.", StringComparison.Ordinal) })
        {
            await daemon.StopDaemonAsync();
            File.WriteAllText(file, bad);
            await daemon.StartDaemonAsync();
            Assert.Empty((await daemon.Client.NetworksAsync(s_none)).Networks);
            Assert.Equal("name-taken", (await DaemonFixture.RefusedAsync(
                () => daemon.Client.CreateNetworkAsync(new NetworkRequest("lan"), s_none))).Code);
        }
    }

    [Fact]
    public async Task Names_and_ranges_that_make_no_sense_or_are_in_use_are_refused()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        daemon.Networks.InUse.Add((new Ipv4Subnet(0x0A020300, 24), "eth0"));
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "auto"), s_none);
        foreach ((string name, string? subnet, string code) in new[]
        {
            ("", null, "network-invalid"), ("a/b", null, "network-invalid"), (".a", null, "network-invalid"),
            (new string('a', 65), null, "network-invalid"), ("lan", null, "name-taken"),
            ("x", "", "network-invalid"), ("x", "10.1.2.3/24", "network-invalid"), ("x", "10.0.0.0/8", "network-invalid"),
            ("x", "10.9.9.0/30", "network-invalid"), ("x", "fd00::/64", "network-invalid"), ("x", "10.9.9/24", "network-invalid"),
            ("x", "127.1.0.0/16", "network-invalid"), ("x", "224.1.0.0/16", "network-invalid"), ("x", "0.0.0.0/16", "network-invalid"),
            ("x", "10.1.0.0/16", "subnet-taken"), ("x", "10.1.2.128/25", "subnet-taken"), ("x", "10.2.3.64/26", "subnet-taken"),
        })
        {
            Assert.Equal(code, (await DaemonFixture.RefusedAsync(
                () => daemon.Client.CreateNetworkAsync(new NetworkRequest(name, subnet), s_none))).Code);
        }

        daemon.Networks.InUse6 = new Ipv6Prefix(0xFD00_0001_0002_0003);
        string lan = (await daemon.Client.NetworkAsync("lan", s_none)).Ipv6!;
        foreach ((string ipv6, string code) in new[]
        {
            ("", "network-invalid"), ("yes", "network-invalid"), ("fd00::/48", "network-invalid"), ("fe80::/64", "network-invalid"),
            (new string('f', 4000), "network-invalid"), ("fd00:1:2:3::/64", "subnet-taken"), (lan, "subnet-taken"),
        })
        {
            Assert.Equal(code, (await DaemonFixture.RefusedAsync(
                () => daemon.Client.CreateNetworkAsync(new NetworkRequest("x", Ipv6: ipv6), s_none))).Code);
        }

        Assert.Equal("lan", Assert.Single(daemon.Networks.There).Key);
    }

    [Fact]
    public async Task A_network_has_a_range_of_IPv6_of_its_own_unless_it_is_to_have_none()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        NetworkInfo lan = await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "auto"), s_none);
        Assert.True(Ipv6Prefix.TryParse(lan.Ipv6!, out Ipv6Prefix range, out _));
        Assert.Equal(0xFDu, range.Network >> 56);
        Assert.Equal((range.Address(1).ToString(), range.Address(2).ToString(), null), (lan.Gateway6, lan.Server6, lan.Ipv6Problem));
        Assert.True(daemon.Networks.Forwards6);
        VmInfo web = await daemon.CreateAsync(
            "web", "nets: [{network: lan}, {network: lan, mac: \"52:54:00:AA:00:01\", addresses: [10.1.2.50]}]\n");
        Assert.Equal(["10.1.2.3", "10.1.2.50", range.Address(3).ToString(), range.Address(50).ToString()], web.Addresses);
        Assert.Equal(range.Address(50), daemon.Networks.There["lan"].Reserved[1].Ipv6);
        Assert.Equal(range.Address(3).ToString(), (await daemon.Client.NetworkAsync("lan", s_none)).Addresses[0].Ipv6);

        NetworkInfo given = await daemon.Client.CreateNetworkAsync(new NetworkRequest("given", Ipv6: "fd00:1:2:3::/64"), s_none);
        Assert.Equal("fd00:1:2:3::1", given.Gateway6);
        NetworkInfo bare = await daemon.Client.CreateNetworkAsync(new NetworkRequest("bare"), s_none);
        Assert.Equal((null, null, null), (bare.Ipv6, bare.Gateway6, bare.Ipv6Problem));
        await daemon.RestartAsync();
        Assert.Equal(lan.Ipv6, (await daemon.Client.NetworkAsync("lan", s_none)).Ipv6);
        Assert.Null((await daemon.Client.NetworkAsync("bare", s_none)).Ipv6);

        await daemon.Client.DeleteAsync("web", s_none);
        await daemon.Client.DeleteNetworkAsync("lan", s_none);
        await daemon.Client.DeleteNetworkAsync("given", s_none);
        Assert.Equal((true, false), (daemon.Networks.Forwards, daemon.Networks.Forwards6));
    }

    [Fact]
    public async Task A_host_without_IPv6_has_networks_with_IPv4_and_says_so()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        daemon.Networks.Ipv6Problem = "this host has no IPv6 (ipv6.disable=1)";
        NetworkInfo lan = await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "auto"), s_none);
        Assert.Equal(("up", daemon.Networks.Ipv6Problem), (lan.State, lan.Ipv6Problem));
        Assert.Equal(["10.1.2.3"], (await daemon.CreateAsync("web", "nets: [{network: lan}]\n")).Addresses);
        daemon.Networks.Ipv6Problem = null;
        Assert.Equal(2, (await daemon.Client.ShowAsync("web", s_none)).Addresses!.Count);
    }

    [Fact]
    public async Task A_network_gets_IPv6_another_range_and_none_while_a_VM_uses_it()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "none"), s_none);
        await daemon.CreateAsync("web", "nets: [{network: lan}]\n");
        string? made = (await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange("auto"), s_none)).Ipv6;
        Assert.StartsWith("fd", made, StringComparison.Ordinal);
        Assert.Equal(made, (await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange("auto"), s_none)).Ipv6);
        Assert.Equal(made, (await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange(made!), s_none)).Ipv6);
        Assert.True(daemon.Networks.Forwards6);
        await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange("fd00:1:2:3::/64"), s_none);
        Assert.Equal("fd00:1:2:3::3", daemon.Networks.There["lan"].Reserved[0].Ipv6!.ToString());
        Assert.Equal(["10.1.2.3", "fd00:1:2:3::3"], (await daemon.Client.ShowAsync("web", s_none)).Addresses);
        await daemon.RestartAsync();
        Assert.Equal("fd00:1:2:3::/64", (await daemon.Client.NetworkAsync("lan", s_none)).Ipv6);
        foreach ((string name, string ipv6, string code) in new[]
        {
            ("lan", "fd00::/48", "network-invalid"), ("lan", "", "network-invalid"), ("none", "auto", "network-not-found"),
        })
        {
            Assert.Equal(code, (await DaemonFixture.RefusedAsync(
                () => daemon.Client.ChangeNetworkAsync(name, new NetworkChange(ipv6), s_none))).Code);
        }

        Assert.Null((await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange("none"), s_none)).Ipv6);
        Assert.Equal(["10.1.2.3"], (await daemon.Client.ShowAsync("web", s_none)).Addresses);
        Assert.Equal((true, false), (daemon.Networks.Forwards, daemon.Networks.Forwards6));

        daemon.Networks.Refuses = "the kernel has had enough";
        Assert.Equal("failed", (await daemon.Client.ChangeNetworkAsync("lan", new NetworkChange("auto"), s_none)).State);
        daemon.Networks.Refuses = null;
        await DaemonFixture.UntilAsync(() => daemon.Client.NetworkAsync("lan", s_none).GetAwaiter().GetResult().State == "up");
    }

    [Fact]
    public async Task A_network_of_before_IPv6_stays_without()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24", Ipv6: "none"), s_none);
        await daemon.CreateAsync("web", "nets: [{network: lan}]\n");
        await daemon.StopDaemonAsync();
        string file = Path.Combine(daemon.Options.NetworksFolder, "lan.json"), text = File.ReadAllText(file);
        File.WriteAllText(file, System.Text.RegularExpressions.Regex.Replace(text, ",\\s*\"ipv6\": null", ""));
        Assert.NotEqual(text, File.ReadAllText(file));
        await daemon.StartDaemonAsync();
        NetworkInfo lan = await daemon.Client.NetworkAsync("lan", s_none);
        Assert.Equal(("up", null), (lan.State, lan.Ipv6));
        Assert.Equal(["10.1.2.3"], (await daemon.Client.ShowAsync("web", s_none)).Addresses);
    }

    [Theory]
    [InlineData("fd00:1:2:3::/64", "")]
    [InlineData("2001:db8:1:2::/64", "")]
    [InlineData("fd00::/48", "expected an IPv6 range of 64 bits")]
    [InlineData("fd00::", "expected an IPv6 range of 64 bits")]
    [InlineData("fd00::%1/64", "expected an IPv6 range of 64 bits")]
    [InlineData("10.1.2.0/64", "expected an IPv6 range of 64 bits")]
    [InlineData("fd00::5/64", "did you mean fd00::/64?")]
    [InlineData("fe80::/64", "a host can have")]
    [InlineData("ff02::/64", "a host can have")]
    [InlineData("::/64", "a host can have")]
    [InlineData("::ffff:10.1.2.3/64", "did you mean")]
    public void Ranges_of_IPv6_are_those_of_a_link(string text, string why)
    {
        Assert.Equal(why.Length == 0, Ipv6Prefix.TryParse(text, out Ipv6Prefix range, out string problem));
        Assert.Contains(why, problem, StringComparison.Ordinal);
        Assert.True(why.Length > 0 || range.ToString() == text);
    }

    [Fact]
    public void Ranges_made_at_random_are_local_ones_and_differ()
    {
        HashSet<Ipv6Prefix> made = [];
        for (int i = 0; i < 100; i++)
        {
            Ipv6Prefix range = Ipv6Prefix.NewLocal();
            Assert.True(made.Add(range) && range.Network >> 56 == 0xFD);
            Assert.True(Ipv6Prefix.TryParse(range.ToString(), out Ipv6Prefix read, out _) && read == range);
            Assert.True(range.Overlaps(range.Address(7).GetAddressBytes(), 128) && range.Overlaps(range.Address(0).GetAddressBytes(), 48));
            Assert.False(new Ipv6Prefix(range.Network ^ 1).Overlaps(range.Address(7).GetAddressBytes(), 64));
            Assert.True(new Ipv6Prefix(range.Network ^ 1).Overlaps(range.Address(7).GetAddressBytes(), 63));
        }
    }

    [Fact]
    public void A_range_of_ones_own_is_one_that_nothing_of_the_host_overlaps()
    {
        List<(Ipv4Subnet Subnet, string By)> used = [];
        HashSet<Ipv4Subnet> chosen = [];
        while (HostSubnets.Choose(used) is { } next)
        {
            Assert.True(chosen.Add(next) && next.Prefix == 24);
            Assert.DoesNotContain(used, u => u.Subnet.Overlaps(next));
            used.Add((next, "test"));
        }

        Assert.True(chosen.Count > 256);
        Assert.Null(HostSubnets.Choose([(new Ipv4Subnet(0, 1), "low"), (new Ipv4Subnet(0x8000_0000, 1), "high")]));
    }

    [Fact]
    public void What_this_host_uses_is_found()
    {
        Assert.Contains(HostSubnets.Used(except: null), used => used.Subnet.Contains(0x7F000001)); // its loopback
        Assert.DoesNotContain(HostSubnets.Used(except: "lo"), used => used.By == "lo");
    }

    [Theory]
    [InlineData("web1", "web1")]
    [InlineData("Web.One_2", "web-one-2")]
    [InlineData("a.", "a")]
    [InlineData("_", null)]
    public void Names_of_VMs_become_names_of_hosts(string vm, string? host) => Assert.Equal(host, PrivateNetwork.HostName(vm));

    [Fact]
    public void Rules_and_settings_are_the_networks_own_and_tell_nothing_of_the_host()
    {
        PrivateNetwork open = new("lan", "id", 3, new Ipv4Subnet(0x0A010200, 24), Isolated: false), shut = open with { Isolated = true };
        string rules = NetworkRules.Text(open);
        Assert.Contains("ip saddr 10.1.2.0/24 oifname != \"vmmbr3\" masquerade", rules, StringComparison.Ordinal);
        Assert.DoesNotContain("masquerade", NetworkRules.Text(shut), StringComparison.Ordinal);
        Assert.Contains("iifname \"vmmbr3\" drop", NetworkRules.Text(shut), StringComparison.Ordinal);
        using NetworkServices services = new(open, "/nonexistent", 5), alone = new(shut, "/nonexistent", 5);
        Assert.Contains("\nno-hosts\nresolv-file=/mnt/resolv\n", services.Settings(), StringComparison.Ordinal);
        Assert.Contains("dhcp-range=10.1.2.0,static,255.255.255.0,24h", services.Settings(), StringComparison.Ordinal);
        Assert.Contains("\nno-resolv\n", alone.Settings(), StringComparison.Ordinal);
        Assert.DoesNotContain("option:router,", alone.Settings(), StringComparison.Ordinal);
        Assert.DoesNotContain("ip6", rules + services.Settings(), StringComparison.Ordinal);
        Assert.DoesNotContain("enable-ra", services.Settings(), StringComparison.Ordinal);
        Assert.Contains("iifname \"vmmbr3\" meta nfproto != ipv4 drop", rules, StringComparison.Ordinal);
    }

    [Fact]
    public void Rules_and_settings_of_IPv6_are_those_of_IPv4_beside_them()
    {
        PrivateNetwork open = new("lan", "id", 3, new Ipv4Subnet(0x0A010200, 24), Isolated: false, new Ipv6Prefix(0xFD00_0001_0002_0003));
        PrivateNetwork shut = open with { Isolated = true };
        string rules = NetworkRules.Text(open);
        Assert.Contains("ip6 saddr fd00:1:2:3::/64 oifname != \"vmmbr3\" masquerade", rules, StringComparison.Ordinal);
        Assert.Contains("iifname \"vmmbr3\" ip6 saddr != fd00:1:2:3::/64 drop", rules, StringComparison.Ordinal);
        Assert.Contains("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", rules, StringComparison.Ordinal);
        Assert.DoesNotContain("nfproto != ipv4", rules, StringComparison.Ordinal);
        Assert.DoesNotContain("masquerade", NetworkRules.Text(shut), StringComparison.Ordinal);
        Assert.DoesNotContain("notrack", NetworkRules.Text(shut), StringComparison.Ordinal);
        using NetworkServices services = new(open, "/nonexistent", 5), alone = new(shut, "/nonexistent", 5);
        Assert.Contains("\nenable-ra\nra-param=lan0,600,1800\ndhcp-range=fd00:1:2:3::,static,64,24h\n", services.Settings(),
            StringComparison.Ordinal);
        Assert.Contains("dhcp-option=option6:dns-server,[fd00:1:2:3::2]", services.Settings(), StringComparison.Ordinal);
        Assert.Contains("ra-param=lan0,600,0\n", alone.Settings(), StringComparison.Ordinal); // no router
        services.Network = open with { Ipv6 = null };
        Assert.DoesNotContain("fd00:", services.Settings(), StringComparison.Ordinal);
    }
}
