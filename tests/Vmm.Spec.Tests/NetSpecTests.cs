using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Spec.Tests;

public sealed class NetSpecTests
{
    private const string Head = "boot: {kernel: k}\n";

    [Fact]
    public void Nets_and_limits_are_read()
    {
        VmSpec spec = SpecReader.Read(Head + """
            disks:
            - {path: d, limits: {operations: 5000, operationsBurst: 50}}
            nets:
            - tap: vmtap0
            - {tap: vmtap1, mac: "52:54:00:AB:cd:ef", queues: 4, mtu: 9000, transport: mmio, limits: {bandwidth: 100MiB, burst: 1MiB}}
            """, "test.yaml");
        Assert.Equal(new LimitsSpec { Operations = 5000, OperationsBurst = 50 }, spec.Disks[0].Limits);
        Assert.Equal(new NetSpec { Tap = "vmtap0" }, spec.Nets[0]);
        Assert.Equal(
            new NetSpec
            {
                Tap = "vmtap1",
                Mac = "52:54:00:AB:cd:ef",
                Queues = 4,
                Mtu = 9000,
                Transport = Vmm.Spec.VirtioTransport.Mmio,
                Limits = new LimitsSpec { Bandwidth = ByteSize.MiB(100), Burst = ByteSize.MiB(1) }
            },
            spec.Nets[1]);
        Assert.Equal(new LimitsSpec { Bandwidth = ByteSize.MiB(100), Burst = ByteSize.MiB(1) }, spec.Nets[1].Limits);
        Assert.Empty(SpecValidation.Validate(spec));
        Assert.Equal(spec.Nets, VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem)?.Nets);
        Assert.Equal("", problem);
    }

    [Fact]
    public void Every_problem_of_nets_and_limits_is_told_at_once()
    {
        VmSpec spec = new()
        {
            Boot = new BootSpec { Kernel = "k" },
            Disks = [new DiskSpec { Path = "d", Limits = new LimitsSpec { Burst = ByteSize.MiB(1), OperationsBurst = 5 } }],
            Nets =
            [
                new NetSpec { Tap = "a/b", Mac = "52:54:00:12:34", Queues = 0, Mtu = 60 },
                new NetSpec
                {
                    Tap = "t",
                    Mac = "53:54:00:12:34:56",
                    Queues = 9,
                    Limits = new LimitsSpec { Bandwidth = new ByteSize(5), Operations = 0 }
                },
                new NetSpec { Tap = "t", Mac = "00:00:00:00:00:00" },
                new NetSpec { Tap = "a-name-too-long-" },
                new NetSpec { Tap = "u", Mac = "52:54:00:00:00:01" },
                new NetSpec { Tap = "v", Mac = "52:54:00:00:00:01" },
            ],
        };
        Assert.Equal(
            [
                "disks[0].limits", "disks[0].limits.burst", "disks[0].limits.operationsBurst", "nets[0].mac", "nets[0].mtu",
                "nets[0].queues", "nets[0].tap",
                "nets[1].limits.bandwidth", "nets[1].limits.operations", "nets[1].mac", "nets[1].queues", "nets[2].mac", "nets[2].tap",
                "nets[3].tap", "nets[5].mac",
            ],
            SpecValidation.Validate(spec).Select(p => p.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void User_mode_networking_is_read_and_travels()
    {
        VmSpec spec = SpecReader.Read(
            Head + "nets:\n- {user: true, mac: \"52:54:00:00:00:01\"}\n", "test.yaml");
        Assert.Equal(("", "user:passt"), (spec.Nets[0].Tap, spec.Nets[0].Source));
        Assert.Empty(spec.Nets[0].User!.Publish);
        spec = SpecReader.Read(Head + "nets:\n- user: {publish: [\"2222:22\", \"[::1]:53:5353/udp\"]}\n- tap: t\n", "test.yaml");
        Assert.Equal(["2222:22", "[::1]:53:5353/udp"], spec.Nets[0].User!.Publish);
        Assert.Empty(SpecValidation.Validate(spec));
        VmSpec? read = VmSpecJson.TryRead(VmSpecJson.Write(spec), out _);
        Assert.Equal(spec.Nets[0].User!.Publish, read!.Nets[0].User!.Publish);
        string edited = SpecEdit.Add(Head, null, spec.Nets[0])!;
        Assert.Equal(spec.Nets[0].User!.Publish, SpecReader.Read(edited, "edited.yaml").Nets[0].User!.Publish);
        Assert.Null(SpecReader.Read(Head + "nets: [{tap: t, user: false}]\n", "test.yaml").Nets[0].User);
    }

    [Fact]
    public void Every_problem_of_user_mode_networking_is_told_at_once()
    {
        UserNetSpec user = new();
        VmSpec spec = new()
        {
            Boot = new BootSpec { Kernel = "k" },
            Nets =
            [
                new NetSpec { User = user, Tap = "t" },
                new NetSpec { User = user, Queues = 2, Vhost = VhostUse.On, Mtu = 65521 },
                new NetSpec
                {
                    User = new UserNetSpec { Publish = ["80:80", "127.0.0.1:80:81/tcp", "80:80/udp", "0:1", new string('1', 500)] },
                },
                new NetSpec { User = new UserNetSpec { Publish = [.. Enumerable.Range(1, 65).Select(i => $"{i}:1")] } },
            ],
        };
        Assert.Equal(
            ["nets[0].user", "nets[1].user", "nets[2].user", "nets[2].user.publish[1]", "nets[2].user.publish[3]",
                "nets[2].user.publish[4]", "nets[3].user", "nets[3].user.publish"],
            SpecValidation.Validate(spec).Select(p => p.Path).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal));
        Assert.All(SpecValidation.Validate(spec), problem => Assert.InRange(problem.Message.Length, 1, 300));
    }

    [Fact]
    public void Bridges_are_read_and_travel()
    {
        VmSpec spec = SpecReader.Read(Head + """
            nets:
            - {bridge: br0}
            - {bridge: br0, vlan: 7, antiSpoof: true, addresses: [192.0.2.2, "2001:db8::2"], mac: "52:54:00:00:00:01", queues: 2}
            """, "test.yaml");
        Assert.Equal(["bridge:br0", "bridge:br0/52:54:00:00:00:01"], spec.Nets.Select(n => n.Source));
        Assert.Equal(["192.0.2.2", "2001:db8::2"], spec.Nets[1].Addresses);
        Assert.Empty(SpecValidation.Validate(spec));
        VmSpec read = VmSpecJson.TryRead(VmSpecJson.Write(spec), out _)!;
        Assert.Equal(spec.Nets[0], read.Nets[0]);
        Assert.Equal((true, 7), (read.Nets[1].AntiSpoof, read.Nets[1].Vlan));
        string edited = SpecEdit.Add(Head, null, spec.Nets[1])!;
        Assert.Equal(spec.Nets[1].Addresses, SpecReader.Read(edited, "edited.yaml").Nets[0].Addresses);
        Assert.DoesNotContain(VmSpecJson.Write(new NetSpec { Tap = "t" }).EnumerateObject(), // a worker of before knows none
            member => member.Name is "antiSpoof" or "addresses" or "bridge" or "vlan" or "user");
    }

    [Fact]
    public void Every_problem_of_a_bridge_is_told_at_once()
    {
        const string mac = "52:54:00:00:00:01";
        VmSpec spec = new()
        {
            Boot = new BootSpec { Kernel = "k" },
            Nets =
            [
                new NetSpec { Tap = "t", Vlan = 1, AntiSpoof = true, Addresses = ["192.0.2.1"] },
                new NetSpec { Bridge = "b/r", Tap = "u", AntiSpoof = true },
                new NetSpec { Bridge = "br0", Addresses = [], Vlan = 4095 },
                new NetSpec { Bridge = "br0", User = new UserNetSpec() },
                new NetSpec
                {
                    Bridge = "br1",
                    Mac = mac,
                    AntiSpoof = true,
                    Addresses = ["192.0.2", "224.0.0.1", "ff02::1", "fe80::1%e", "::", "1.2.3.4"],
                },
            ],
        };
        Assert.Equal(
            ["nets[0].addresses", "nets[0].antiSpoof", "nets[0].vlan", "nets[1].antiSpoof", "nets[1].bridge", "nets[2].addresses",
                "nets[2].vlan", "nets[3].user", "nets[4].addresses[0]", "nets[4].addresses[1]", "nets[4].addresses[2]",
                "nets[4].addresses[3]", "nets[4].addresses[4]"],
            SpecValidation.Validate(spec).Select(p => p.Path).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal));
        Assert.Equal("nets[1].bridge", SpecValidation.Validate(spec with
        {
            Nets = [new NetSpec { Bridge = "br0" }, new NetSpec { Bridge = "br0" }],
        }).Single().Path);
    }

    [Theory]
    [InlineData("2222:22", "127.0.0.1", 2222, 22, false)]
    [InlineData("0.0.0.0:65535:1/udp", "0.0.0.0", 65535, 1, true)]
    [InlineData("[::]:80:8080/tcp", "::", 80, 8080, false)]
    [InlineData("[2001:0DB8::1]:80:80", "2001:db8::1", 80, 80, false)]
    public void Published_ports_are_read(string text, string address, int host, int guest, bool udp)
    {
        Assert.True(PublishedPort.TryParse(text, out PublishedPort port, out _));
        Assert.Equal(new PublishedPort(address, host, guest, udp), port);
    }

    [Theory]
    [InlineData("")]
    [InlineData("22")]
    [InlineData(":22")]
    [InlineData("22:")]
    [InlineData("0:22")]
    [InlineData("22:65536")]
    [InlineData("+22:22")]
    [InlineData(" 22:22")]
    [InlineData("22:22/sctp")]
    [InlineData("22:22/tcp/udp")]
    [InlineData(":22:22")]
    [InlineData("127.1:22:22")]
    [InlineData("localhost:22:22")]
    [InlineData("::1:22:22")]
    [InlineData("[fe80::1%eth0]:22:22")]
    [InlineData("[127.0.0.1]:22:22")]
    [InlineData("127.0.0.1/2222:22:22")]
    [InlineData("1,2:3")]
    [InlineData("22:22 -t all")]
    [InlineData("000022:22")]
    public void What_is_no_published_port_is_refused(string text) => Assert.False(PublishedPort.TryParse(text, out _, out _));

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_text_is_a_published_port_or_refused()
    {
        const string letters = "0123456789:./[]tcpud-f%, \0é";
        Random random = new(4);
        for (int i = 0; i < 20_000; i++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(0, 30)).Select(_ => letters[random.Next(letters.Length)]));
            if (PublishedPort.TryParse(text, out PublishedPort port, out string problem))
            {
                Assert.Matches("^[0-9a-f.:]+$", port.Address); // a word of a command line
                Assert.InRange(port.HostPort, 1, 65535);
                Assert.InRange(port.GuestPort, 1, 65535);
            }
            else
            {
                Assert.NotEmpty(problem);
            }
        }
    }

    [Fact]
    public void A_default_address_is_local_and_stays()
    {
        Assert.Equal(MacAddress.Default("web1", 0), MacAddress.Default("web1", 0));
        HashSet<string> seen = [];
        for (int vm = 0; vm < 50; vm++)
        {
            for (int index = 0; index < 8; index++)
            {
                byte[] mac = MacAddress.Default($"web{vm}", index);
                Assert.Equal([0x52, 0x54, 0x00], mac[..3]);
                Assert.True(seen.Add(Convert.ToHexString(mac)));
            }
        }
    }

    [Fact]
    public void A_device_of_a_network_is_read_and_travels()
    {
        VmSpec spec = SpecReader.Read(Head + """
            nets:
            - {network: default}
            - {network: default, addresses: [192.0.2.9], mac: "52:54:00:00:00:01", mtu: 1400}
            - {tap: t}
            """, "test.yaml");
        Assert.Equal(["network:default", "network:default/52:54:00:00:00:01", "t"], spec.Nets.Select(n => n.Source));
        Assert.Empty(SpecValidation.Validate(spec));
        Assert.Equal(spec.Nets.Select(n => n.Source), VmSpecJson.TryRead(VmSpecJson.Write(spec), out _)!.Nets.Select(n => n.Source));
        Assert.True(SpecOption.TryParseNet("network=default,mac=52:54:00:00:00:02", out NetSpec net, out _));
        Assert.Equal(("default", ""), (net.Network, net.Tap));
        Assert.Equal("{network: \"default\", mac: \"52:54:00:00:00:02\"}", SpecEdit.Item(net));
    }

    [Fact]
    public void Every_problem_of_a_device_of_a_network_is_told_at_once()
    {
        VmSpec spec = new()
        {
            Boot = new BootSpec { Kernel = "k" },
            Nets =
            [
                new NetSpec { Network = "a/b", Tap = "t", Bridge = "b", User = new UserNetSpec() },
                new NetSpec { Network = "a", Vlan = 3, Mtu = 9000, Addresses = ["192.0.2.1", "192.0.2.2"] },
                new NetSpec { Network = "a", Addresses = ["2001:db8::1"] },
            ],
        };
        Assert.Equal(
            [
                "nets[0].network", "nets[0].network", "nets[0].network", "nets[0].user", "nets[0].user", "nets[0].user",
                "nets[1].addresses", "nets[1].mtu", "nets[1].vlan", "nets[2].addresses", "nets[2].network",
            ],
            SpecValidation.Validate(spec).Select(p => p.Path).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void A_macvtap_is_read_and_travels_and_its_problems_are_told()
    {
        VmSpec spec = SpecReader.Read(
            Head + "nets:\n- macvtap: eth0\n- {macvtap: eth0, mode: passthru, mac: \"52:54:00:00:00:01\", queues: 2}\n", "test.yaml");
        Assert.Equal(["macvtap:eth0", "macvtap:eth0/52:54:00:00:00:01"], spec.Nets.Select(n => n.Source));
        Assert.Equal([null, MacvtapMode.Passthru], spec.Nets.Select(n => n.Mode));
        Assert.Empty(SpecValidation.Validate(spec));
        Assert.Equal(spec.Nets, VmSpecJson.TryRead(VmSpecJson.Write(spec), out _)!.Nets);
        Assert.True(SpecOption.TryParseNet("macvtap=eth0,mode=vepa", out NetSpec net, out _));
        Assert.Equal(MacvtapMode.Vepa, net.Mode);
        spec = spec with
        {
            Nets =
            [
                new NetSpec { Macvtap = "a/b" }, new NetSpec { Macvtap = "e", Tap = "t" }, new NetSpec { Macvtap = "f", Bridge = "b" },
                new NetSpec { Macvtap = "g", Network = "n" }, new NetSpec { Macvtap = "h", User = new UserNetSpec() },
                new NetSpec { Tap = "u", Mode = MacvtapMode.Bridge }, new NetSpec { Macvtap = "i" }, new NetSpec { Macvtap = "i" },
            ],
        };
        Assert.Equal(
            [
                "nets[0].macvtap", "nets[1].macvtap", "nets[2].macvtap", "nets[3].macvtap", "nets[4].user", "nets[5].mode",
                "nets[7].macvtap",
            ],
            SpecValidation.Validate(spec).Select(p => p.Path).Order(StringComparer.Ordinal));
    }
}
