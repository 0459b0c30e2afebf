using System.Text.Json.Serialization;

namespace Vmm.Contracts.Rest;

/// <summary>How the host's memory stands, and what the pressure loop took from VMs with a resident limit.</summary>
/// <param name="Enabled">It takes memory when the host is short; otherwise it only gives back what was taken.</param>
/// <param name="IntervalSeconds">How often it looks.</param>
/// <param name="Rounds">How often it has looked.</param>
/// <param name="ReserveBytes">What is to stay available of the host.</param>
/// <param name="Nodes">The host's NUMA nodes; none: nothing could be read.</param>
/// <param name="SomePercent">Time in which some task of the host waited for memory, of the last ten seconds; left out without PSI.</param>
/// <param name="FullPercent">The same for all tasks at once.</param>
/// <param name="Problem">What of this could not be read; left out when all could.</param>
/// <param name="Vms">VMs that run.</param>
/// <param name="Decisions">The last ones, oldest first.</param>
public sealed record PressureInfo(
    bool Enabled,
    double IntervalSeconds,
    long Rounds,
    ulong ReserveBytes,
    IReadOnlyList<PressureNode> Nodes,
    double? SomePercent,
    double? FullPercent,
    string? Problem,
    IReadOnlyList<PressureVm> Vms,
    IReadOnlyList<PressureEntry> Decisions);

/// <summary>The memory of a host node.</summary>
/// <param name="Node">Its number.</param>
/// <param name="TotalBytes">All of it.</param>
/// <param name="AvailableBytes">Free, or to be had from the kernel at once.</param>
public sealed record PressureNode(int Node, ulong TotalBytes, ulong AvailableBytes);

/// <summary>A VM as the pressure loop saw it.</summary>
/// <param name="Vm">Its name.</param>
/// <param name="ConfiguredBytes">The resident limit of its spec.</param>
/// <param name="LimitBytes">The limit in force.</param>
/// <param name="MinResidentBytes">Least that is left to it.</param>
/// <param name="ResidentBytes">Bytes in the host's memory.</param>
/// <param name="Weight">Its share beside others.</param>
/// <param name="BalloonBytes">What its balloon was asked to take by this loop.</param>
/// <param name="LeftAlone">Why nothing can be taken from it; the figures are left out then. Left out when something can.</param>
public sealed record PressureVm(
    string Vm,
    ulong ConfiguredBytes,
    ulong LimitBytes,
    ulong MinResidentBytes,
    ulong ResidentBytes,
    int Weight,
    ulong BalloonBytes = 0,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? LeftAlone = null);

/// <summary>A decision.</summary>
/// <param name="At">When.</param>
/// <param name="Vm">Name of the VM.</param>
/// <param name="Means"><c>limit</c> or <c>balloon</c>.</param>
/// <param name="FromBytes">What it was.</param>
/// <param name="ToBytes">What it was to be.</param>
/// <param name="Reason">With the numbers.</param>
/// <param name="Problem">Why it could not be done; left out when it was.</param>
public sealed record PressureEntry(
    DateTimeOffset At, string Vm, string Means, ulong FromBytes, ulong ToBytes, string Reason, string? Problem = null);
