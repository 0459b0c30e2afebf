using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>A wish about the memory of a running VM; what is null stays as it is.</summary>
/// <param name="Vnode">The vnode <paramref name="Bytes"/> is about; null is vnode 0.</param>
/// <param name="Bytes">All memory the vnode shall have.</param>
/// <param name="BalloonBytes">Size the balloon shall have.</param>
/// <param name="Auto">True: from now on vmmd's balancer decides about the vnode again, as before somebody gave it a size. Not for
/// workers.</param>
/// <param name="Force">True: the guest is asked for all of it at once, whatever it has left for itself.</param>
/// <param name="Resident">Most memory that is resident: a size or a percentage of the VM's memory, <c>25%</c>, as its spec has it from now
/// on, too. Not for workers.</param>
/// <param name="ResidentBytes">The same for a worker, in bytes. Needs <see cref="ControlVersion.Paging"/>.</param>
public sealed record MemoryWish(
    int? Vnode = null,
    ulong? Bytes = null,
    ulong? BalloonBytes = null,
    bool? Auto = null,
    bool? Force = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Resident = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? ResidentBytes = null);

/// <summary>The memory of a running VM.</summary>
/// <param name="Vnodes">One entry per vnode.</param>
/// <param name="Balloon">Null when the VM has no balloon.</param>
/// <param name="Paging">Which part of it is resident; left out when all may be.</param>
public sealed record VmMemory(
    IReadOnlyList<VnodeMemoryInfo> Vnodes,
    BalloonMemoryInfo? Balloon,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] PagingInfo? Paging = null)
{
    /// <summary>True when every vnode and the balloon have what was asked.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public bool Settled
    {
        get
        {
            foreach (VnodeMemoryInfo vnode in Vnodes)
            {
                if (vnode.PresentBytes != vnode.AskedBytes)
                {
                    return false;
                }
            }

            return Balloon is null || Balloon.ActualBytes == Balloon.TargetBytes;
        }
    }
}

/// <summary>Memory of one vnode.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="LeastBytes">It cannot go below this without a balloon.</param>
/// <param name="MostBytes">It cannot go beyond this.</param>
/// <param name="AskedBytes">What the guest was asked to have.</param>
/// <param name="PresentBytes">What the guest has.</param>
/// <param name="StuckBytes">What the guest has not given back of what it was asked for.</param>
/// <param name="Driven">A virtio-mem driver of the guest is at work; false before it is loaded, or when the size is fixed.</param>
/// <param name="BlockBytes">It grows and shrinks by multiples of this.</param>
/// <param name="BelowBytes">How far the balloon is asked to bring it below <paramref name="LeastBytes"/>; part of what was asked.</param>
/// <param name="HeldBackBytes">Of <paramref name="StuckBytes"/>: what the guest has not been asked for yet, because by its own account too
/// little would be left for it.</param>
public sealed record VnodeMemoryInfo(int Vnode, ulong LeastBytes, ulong MostBytes, ulong AskedBytes, ulong PresentBytes, ulong StuckBytes,
    bool Driven, ulong BlockBytes = 2 << 20, ulong BelowBytes = 0, ulong HeldBackBytes = 0);

/// <summary>The balloon of a VM.</summary>
/// <param name="TargetBytes">The size it was asked to have.</param>
/// <param name="ActualBytes">The size the guest says it has.</param>
/// <param name="HeldBytes">Memory in it that went back to the host.</param>
/// <param name="FreeBytes">Free memory of the guest, as its driver told last; null when it never did.</param>
/// <param name="AvailableBytes">Memory its programs could get, as its driver told last; null when it never did.</param>
/// <param name="TotalBytes">All memory the guest counts; null when it never did.</param>
/// <param name="SaidMsAgo">How long ago the driver told, milliseconds; null when it never did.</param>
public sealed record BalloonMemoryInfo(ulong TargetBytes, ulong ActualBytes, ulong HeldBytes, ulong? FreeBytes, ulong? AvailableBytes,
    ulong? TotalBytes, long? SaidMsAgo = null);

/// <summary>The memory of a VM with a resident limit; counts are since its start.</summary>
/// <param name="LimitBytes">Most bytes of guest memory that are resident.</param>
/// <param name="LeastBytes">Least that the limit can be.</param>
/// <param name="ResidentBytes">Bytes in the host's memory, staged ones among them.</param>
/// <param name="StagedBytes">Bytes that are taken from the guest, but in memory still.</param>
/// <param name="SwappedBytes">Bytes of guest memory that are in the swap file.</param>
/// <param name="PinnedBytes">Bytes that transfers of devices use now.</param>
/// <param name="PinnedPeakBytes">Most bytes that they used at once.</param>
/// <param name="Hits">Transfers whose pages were all there.</param>
/// <param name="Misses">Transfers that waited for pages.</param>
/// <param name="BudgetWaits">Transfers that waited because others use too much.</param>
/// <param name="RefusedEvictions">Pages that did not go out because a transfer uses them.</param>
/// <param name="Faults">Page faults of the guest and its worker.</param>
/// <param name="StagedFaults">Those that found the page in memory.</param>
/// <param name="PagesOut">Pages written to the swap file.</param>
/// <param name="PagesIn">Pages read from it.</param>
/// <param name="ZeroPages">Pages that needed no write: all zero.</param>
/// <param name="SwapFileBytes">Bytes of the swap file in use.</param>
/// <param name="Stopped">Why nothing goes out now; left out when it does.</param>
/// <param name="CopyFaults">Faults of I/O threads that read a request's header or wrote its status, where they may wait.</param>
/// <param name="ForeignFaults">Faults of I/O threads anywhere else: 0, or a page was not there for a transfer.</param>
/// <param name="UnchangedPages">Pages that needed no write: as they were when they came from the swap file.</param>
public sealed record PagingInfo(
    ulong LimitBytes,
    ulong LeastBytes,
    ulong ResidentBytes,
    ulong StagedBytes,
    ulong SwappedBytes,
    ulong PinnedBytes,
    ulong PinnedPeakBytes,
    ulong Hits,
    ulong Misses,
    ulong BudgetWaits,
    ulong RefusedEvictions,
    ulong Faults,
    ulong StagedFaults,
    ulong PagesOut,
    ulong PagesIn,
    ulong ZeroPages,
    ulong SwapFileBytes,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Stopped = null,
    ulong CopyFaults = 0,
    ulong ForeignFaults = 0,
    ulong UnchangedPages = 0);
