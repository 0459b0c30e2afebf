using Vmm.Devices.Acpi;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Layout;

/// <summary>What a VM's HMAT says of its vnodes.</summary>
public static class MemoryPerformance
{
    /// <summary>Greatest latency of a spec, in nanoseconds.</summary>
    public const int MaxLatency = SpecValidation.MaxLatency;

    /// <summary>Greatest bandwidth of a spec, in 10^6 bytes a second.</summary>
    public const int MaxBandwidth = SpecValidation.MaxBandwidth;

    /// <summary>
    /// As the spec says; what it does not say is the host's, when every vnode has one host node and the host says it of all of them. Null:
    /// nothing is known.
    /// </summary>
    /// <param name="spec">A validated spec with vnodes.</param>
    /// <param name="distances">SLIT rows.</param>
    public static AcpiPerformance? Of(VmSpec spec, IReadOnlyList<IReadOnlyList<int>> distances) =>
        Of(spec, distances, () => HostTopology.Read(), node => HostMemoryPerformance.Read(node));

    /// <summary>
    /// A pure function but for <paramref name="host"/> and <paramref name="read"/>, which are asked only when the spec leaves something
    /// open.
    /// </summary>
    public static AcpiPerformance? Of(
        VmSpec spec, IReadOnlyList<IReadOnlyList<int>> distances, Func<HostTopology> host, Func<int, HostMemoryPerformance> read)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        IReadOnlyList<IReadOnlyList<int>>? latencies = spec.Numa?.Latencies, bandwidths = spec.Numa?.Bandwidths;
        if ((latencies is null || bandwidths is null) && vnodes.All(v => v.HostNodes.Count == 1))
        {
            HostMemoryPerformance[] local = [.. vnodes.Select(v => read(v.HostNodes[0]))];
            int[] near = [.. vnodes.Select(v => Nearest(host(), v.HostNodes[0]))];
            // The host says how fast a node's nearest processors are: its own, or for a node without any those at this distance. From
            // elsewhere it is slower by what SLIT says.
            latencies ??= local.All(l => l.LatencyNanoseconds is not null) ? Matrix(vnodes.Count,
                (i, j) => Scaled(local[j].LatencyNanoseconds!.Value, Math.Max(distances[i][j], near[j]), near[j], MaxLatency)) : null;
            bandwidths ??= local.All(l => l.BandwidthMegabytes is not null) ? Matrix(vnodes.Count,
                (i, j) => Scaled(local[j].BandwidthMegabytes!.Value, near[j], Math.Max(distances[i][j], near[j]), MaxBandwidth)) : null;
        }

        if (latencies is null && bandwidths is null)
        {
            return null;
        }

        int[] initiators = [.. Enumerable.Range(0, vnodes.Count).Where(i => vnodes[i].Cpus.Count > 0 || HasDevice(spec, i))];
        int[] targets = [.. Enumerable.Range(0, vnodes.Count).Where(i => vnodes[i].BootMemory + vnodes[i].HotMemory > 0)];
        return new AcpiPerformance(
            initiators,
            [.. targets.Select(t => new AcpiTarget(t, vnodes[t].Cpus.Count > 0 ? t : null))],
            Part(latencies, initiators, targets),
            Part(bandwidths, initiators, targets));
    }

    /// <summary>Whether a device that the guest's SRAT puts near a vnode makes it one that accesses come from.</summary>
    private static bool HasDevice(VmSpec spec, int vnode) =>
        spec.Disks.Any(d => d.Vnode == vnode && (d.Transport ?? spec.VirtioTransport) == VirtioTransport.Pci)
        || spec.Nets.Any(n => n.Vnode == vnode && (n.Transport ?? spec.VirtioTransport) == VirtioTransport.Pci);

    /// <summary>Distance from a host node to the nearest that has CPUs, as SLIT counts.</summary>
    private static int Nearest(HostTopology host, int node) =>
        host.Nodes.FirstOrDefault(n => n.Id == node) is { Cpus.Count: 0 } bare
            ? host.Nodes.Where(n => n.Cpus.Count > 0).Select(n => HostTopology.Distance(n, bare, host.Nodes)).DefaultIfEmpty(10).Min()
            : 10;

    private static IReadOnlyList<int>[]? Part(IReadOnlyList<IReadOnlyList<int>>? whole, int[] rows, int[] columns) =>
        whole is null ? null : [.. rows.Select(i => (IReadOnlyList<int>)[.. columns.Select(j => whole[i][j])])];

    private static IReadOnlyList<int>[] Matrix(int size, Func<int, int, int> value) =>
        [.. Enumerable.Range(0, size).Select(i => (IReadOnlyList<int>)[.. Enumerable.Range(0, size).Select(j => value(i, j))])];

    private static int Scaled(int value, int times, int over, int most) => (int)Math.Clamp((long)value * times / over, 1, most);
}
