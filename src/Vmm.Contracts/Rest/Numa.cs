using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>A wish to move a vnode of a running VM.</summary>
/// <param name="HostNodes">Host nodes in list form, <c>0-1</c>.</param>
/// <param name="BytesPerSecond">How much is moved a second on average, at least 1 MiB; null is as fast as it goes.</param>
public sealed record RehomeRequest(string HostNodes, ulong? BytesPerSecond = null);

/// <summary>Where a running VM lies on its host.</summary>
/// <param name="Vnodes">One entry per vnode.</param>
/// <param name="Rehome">The move of a vnode that goes on, or the last one of this run; null when there was none.</param>
/// <param name="Fit">How the vnodes were mapped onto the host at the start (<c>fit: best</c>); null when that was not asked for.</param>
public sealed record VmNuma(IReadOnlyList<VnodeNuma> Vnodes, RehomeStatus? Rehome = null, NumaFitInfo? Fit = null);

/// <summary>Where one vnode lies.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="Vcpus">Its vCPUs in list form.</param>
/// <param name="HostNodes">Host nodes it is to be on, in list form; empty is anywhere.</param>
/// <param name="Policy"><c>strict</c>, <c>preferred</c>, <c>interleave</c>, or <c>auto</c>: none.</param>
/// <param name="PageBytes">Size of its host pages.</param>
/// <param name="Present">Its memory that is there, by host node; null when this daemon may not look.</param>
/// <param name="AtHomePercent">Share of it on the nodes it is to be on; null when it may be anywhere, or has none.</param>
/// <param name="HostCpus">Host CPUs its threads may use, in list form; empty is any.</param>
/// <param name="Threads">Its vCPU and I/O threads.</param>
public sealed record VnodeNuma(int Vnode, string Vcpus, string HostNodes, string Policy, ulong PageBytes, IReadOnlyList<NodeBytes>? Present,
    double? AtHomePercent, string HostCpus, IReadOnlyList<ThreadPlace> Threads);

/// <summary>Where a thread runs.</summary>
/// <param name="Name"><c>vcpu0</c>, <c>disk0-io0</c>, …</param>
/// <param name="Id">Its number on the host.</param>
/// <param name="AllowedCpus">Host CPUs it may use, as the kernel has them; null when it is gone.</param>
/// <param name="LastCpu">The host CPU it ran on last; null when it is gone.</param>
public sealed record ThreadPlace(string Name, int Id, string? AllowedCpus, int? LastCpu);

/// <summary>The host's NUMA nodes and who sits there.</summary>
/// <param name="Nodes">The nodes.</param>
public sealed record HostNuma(IReadOnlyList<HostNumaNode> Nodes);

/// <summary>One NUMA node of the host.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Cpus">Its CPUs in list form.</param>
/// <param name="TotalBytes">RAM.</param>
/// <param name="FreeBytes">Free RAM.</param>
/// <param name="AvailableBytes">What programs could get: free memory and caches of files.</param>
/// <param name="Distances">To every node, in node order, as ACPI counts: 10 to itself.</param>
/// <param name="HugePages">Its huge pages, one entry per size that it has any of.</param>
/// <param name="Tenants">VMs of this daemon with memory here.</param>
public sealed record HostNumaNode(int Id, string Cpus, ulong TotalBytes, ulong FreeBytes, ulong AvailableBytes,
    IReadOnlyList<int> Distances, IReadOnlyList<HugePageInfo> HugePages, IReadOnlyList<NodeTenant> Tenants);

/// <summary>Huge pages of one size on one node.</summary>
/// <param name="PageBytes">Size of a page.</param>
/// <param name="Total">Pages in the pool.</param>
/// <param name="Free">Pages nobody has.</param>
public sealed record HugePageInfo(ulong PageBytes, ulong Total, ulong Free);

/// <summary>Memory of a VM on a node.</summary>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Vnode">Number of its vnode.</param>
/// <param name="Bytes">How much of it is there.</param>
public sealed record NodeTenant(string Vm, int Vnode, ulong Bytes);
