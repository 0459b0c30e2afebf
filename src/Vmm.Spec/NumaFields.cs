namespace Vmm.Spec;

using Numa = FieldsOf<NumaSpec>;
using Topology = FieldsOf<TopologySpec>;
using Vnode = FieldsOf<VnodeSpec>;

/// <summary>The fields of the virtual NUMA topology, and of the packing of vCPUs.</summary>
internal static class NumaFields
{
    internal static SpecField[] TopologyFields { get; } =
    [
        Topology.Number("sockets", "Sockets; left out, what cores leave, else one for each vnode with CPUs",
            1, SpecValidation.MaxCpus, t => t.Sockets, (t, v) => t with { Sockets = v }),
        Topology.Number("dies", "Dies of a socket; each has its own last-level cache and lies in one vnode",
            1, SpecValidation.MaxCpus, t => t.Dies, (t, v) => t with { Dies = v }),
        Topology.Number("cores", "Cores of a die; left out, what the others leave",
            1, SpecValidation.MaxCpus, t => t.Cores, (t, v) => t with { Cores = v }),
        Topology.Number("threads", "Threads of a core", 1, SpecValidation.MaxCpus, t => t.Threads, (t, v) => t with { Threads = v }),
    ];

    private static readonly SpecField[] s_vnode =
    [
        Vnode.Set("cpus", "vCPUs on this vnode, e.g. 0-3,8", v => v.Cpus, (v, value) => v with { Cpus = value }),
        Vnode.Size("memory", "RAM of this vnode", v => v.Memory, (v, value) => v with { Memory = value }),
        Vnode.Size("minMemory", "Least RAM it can shrink to while the VM runs",
            v => v.MinMemory, (v, value) => v with { MinMemory = value }),
        Vnode.Size("maxMemory", "Most RAM it can grow to while the VM runs", v => v.MaxMemory, (v, value) => v with { MaxMemory = value }),
        Vnode.Set("hostNodes", "Host NUMA nodes the memory comes from", v => v.HostNodes, (v, value) => v with { HostNodes = value }),
        Vnode.Word<VnodePolicy>("policy", "How hostNodes are used; strict when hostNodes are given, else auto (default is its older name)",
            v => v.Policy,
            (v, value) => v with { Policy = value == VnodePolicy.Default ? VnodePolicy.Auto : value }),
        Vnode.Size("pageSize", "Host page size: 4KiB, 2MiB or 1GiB", v => v.PageSize, (v, value) => v with { PageSize = value }),
    ];

    internal static SpecField[] All { get; } =
    [
        Numa.Number("count", "Without vnodes: so many, on the host nodes that have room; as few as fit when left out",
            1, SpecValidation.MaxVnodes, n => n.Count, (n, v) => n with { Count = v }),
        Numa.Word<FitWish>("fit", "With vnodes, when the host has not their hostNodes, or not the room: exact refuses the start, best maps "
            + "them as well as possible",
            n => n.Fit, (n, v) => n with { Fit = v }),
        Numa.List("vnodes", "The virtual NUMA nodes, in order; left out, they follow the host",
            SpecValidation.MaxVnodes, n => n.Vnodes, (n, v) => n with { Vnodes = v }, s_vnode) with
        {
            Complete = (vnode, given) => given.Contains("hostNodes") && !given.Contains("policy") && ((VnodeSpec)vnode).HostNodes.Count > 0
                ? (VnodeSpec)vnode with { Policy = VnodePolicy.Strict }
                : vnode,
        },
        Numa.Matrix("distances", "SLIT rows: distance from each vnode to each vnode",
            new("", SpecKind.Number, "Distance, 10 to itself") { Min = 10, Max = 255 },
            n => n.Distances, (n, v) => n with { Distances = v }),
        Numa.Matrix("latencies", "HMAT rows: nanoseconds of an access from each vnode to each vnode",
            new("", SpecKind.Number, "One vnode") { Min = 1, Max = SpecValidation.MaxLatency },
            n => n.Latencies, (n, v) => n with { Latencies = v }),
        Numa.Matrix("bandwidths", "HMAT rows: 10^6 bytes a second from each vnode to each vnode",
            new("", SpecKind.Number, "One vnode") { Min = 1, Max = SpecValidation.MaxBandwidth },
            n => n.Bandwidths, (n, v) => n with { Bandwidths = v }),
    ];
}
