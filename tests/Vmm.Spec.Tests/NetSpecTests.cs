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
}
