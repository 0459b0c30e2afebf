using Vmm.Devices.Acpi;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Layout;

/// <summary>HMAT values that follow the host.</summary>
public sealed class MemoryPerformanceTests
{
    // Two nodes with CPUs and one of slow memory without any, 20 from the second and 30 from the first.
    private static readonly HostTopology s_host = HostTopology.Of(
    [
        new HostNode(0, [0, 1], 1 << 30, 1 << 30, [10, 21, 30]), new HostNode(1, [2, 3], 1 << 30, 1 << 30, [21, 10, 20]),
        new HostNode(2, [], 1 << 30, 1 << 30, [30, 20, 10]),
    ]);

    [Fact]
    public void Values_of_the_host_are_scaled_by_distance_from_the_processors_they_were_measured_from()
    {
        VmSpec spec = Spec(Vnode(0, 0), Vnode(1, 1), Vnode(2));
        AcpiPerformance performance = MemoryPerformance.Of(
            spec, HostDistances.Of(spec.EffectiveVnodes, s_host), () => s_host, node => node == 2 ? new(250, 9000) : new(80, 20_000))!;
        Assert.Equal([0, 1], performance.Initiators);
        Assert.Equal([new AcpiTarget(0, 0), new AcpiTarget(1, 1), new AcpiTarget(2, null)], performance.Targets);
        Assert.Equal([[80, 168, 375], [168, 80, 250]], performance.LatencyNanoseconds!);
        Assert.Equal([[20_000, 9523, 6000], [9523, 20_000, 9000]], performance.BandwidthMegabytes!);
    }

    [Fact]
    public void What_the_host_does_not_say_of_all_nodes_is_left_out()
    {
        VmSpec spec = Spec(Vnode(0, 0), Vnode(1, 1));
        IReadOnlyList<IReadOnlyList<int>> distances = HostDistances.Of(spec.EffectiveVnodes, s_host);
        Assert.Null(MemoryPerformance.Of(spec, distances, () => s_host, node => new(node == 0 ? 80 : null, null)));
        AcpiPerformance half = MemoryPerformance.Of(spec, distances, () => s_host, node => new(80, node == 0 ? 5 : null))!;
        Assert.True(half.LatencyNanoseconds is not null && half.BandwidthMegabytes is null);
        // one may lie anywhere
        Assert.Null(MemoryPerformance.Of(
            Spec(Vnode(0, 0), new VnodeSpec { Cpus = [1], Memory = ByteSize.MiB(64) }), distances, () => s_host, _ => new(80, 5)));
    }

    [Fact]
    public void Sysfs_that_is_missing_or_nonsense_says_nothing()
    {
        string sysfs = Directory.CreateTempSubdirectory("vmm-perf-").FullName;
        try
        {
            string folder = Directory.CreateDirectory(Path.Combine(sysfs, "devices/system/node/node3/access0/initiators")).FullName;
            File.WriteAllText(Path.Combine(folder, "read_latency"), "95\n");
            File.WriteAllText(Path.Combine(folder, "read_bandwidth"), "much\n");
            Assert.Equal(new HostMemoryPerformance(95, null), HostMemoryPerformance.Read(3, sysfs));
            Assert.Equal(new HostMemoryPerformance(null, null), HostMemoryPerformance.Read(4, sysfs));
        }
        finally
        {
            Directory.Delete(sysfs, recursive: true);
        }
    }

    private static VnodeSpec Vnode(int hostNode, params int[] cpus) =>
        new() { Cpus = cpus, Memory = ByteSize.MiB(64), HostNodes = [hostNode], Policy = VnodePolicy.Preferred };

    private static VmSpec Spec(params VnodeSpec[] vnodes) =>
        new() { Cpus = 2, Memory = ByteSize.MiB(64 * (ulong)vnodes.Length), Numa = new NumaSpec { Vnodes = vnodes } };
}
