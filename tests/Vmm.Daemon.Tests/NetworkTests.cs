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
        NetworkInfo made = await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/29"), s_none);
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
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/29"), s_none);
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
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24"), s_none);
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
        lan.Missing = "its dnsmasq";
        await DaemonFixture.UntilAsync(() => lan.Made == 2);
        daemon.Networks.Refuses = "the kernel has had enough";
        lan.Missing = "its bridge";
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
        await daemon.Client.CreateNetworkAsync(new NetworkRequest("lan", "10.1.2.0/24"), s_none);
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

        Assert.Equal("lan", Assert.Single(daemon.Networks.There).Key);
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
    }
}
