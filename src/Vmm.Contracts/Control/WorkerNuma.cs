namespace Vmm.Contracts.Control;

/// <summary>A wish to move a vnode of a running VM to other host nodes. A worker sees no /sys: who asks says what it finds there.</summary>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="HostNodes">Where to, ascending.</param>
/// <param name="HostCpus">CPUs of these nodes, for the vnode's threads; empty leaves threads where they are.</param>
/// <param name="BytesPerSecond">How much is moved a second on average; null is as fast as it goes.</param>
public sealed record RehomeBody(int Vnode, IReadOnlyList<int> HostNodes, IReadOnlyList<int> HostCpus, ulong? BytesPerSecond = null);

/// <summary>Where the vnodes of a VM are meant to be, as its worker keeps it.</summary>
/// <param name="Vnodes">One entry per vnode.</param>
/// <param name="Rehome">The move that goes on, or the last one; null when there was none.</param>
/// <param name="Fit">How the vnodes were mapped onto the host at the start (<c>fit: best</c>); null when that was not asked for.</param>
public sealed record WorkerNuma(IReadOnlyList<VnodeHomeInfo> Vnodes, RehomeStatus? Rehome = null, NumaFitInfo? Fit = null);

/// <summary>The home of one vnode.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="HostNodes">Host nodes its memory is to be on; empty is anywhere.</param>
/// <param name="Policy"><c>strict</c>, <c>preferred</c>, <c>interleave</c>, or <c>auto</c>: none.</param>
/// <param name="PageBytes">Size of its host pages.</param>
/// <param name="HostCpus">Host CPUs its threads may use; empty is any.</param>
/// <param name="Threads">vCPU and I/O threads that belong to it.</param>
public sealed record VnodeHomeInfo(int Vnode, IReadOnlyList<int> HostNodes, string Policy, ulong PageBytes, IReadOnlyList<int> HostCpus,
    IReadOnlyList<HomedThreadInfo> Threads);

/// <summary>A thread of a VM.</summary>
/// <param name="Name"><c>vcpu0</c>, <c>disk0-io0</c>, …</param>
/// <param name="Id">Its number on the host.</param>
public sealed record HomedThreadInfo(string Name, int Id);

/// <summary>How a move of a vnode stands.</summary>
public enum RehomeState
{
    /// <summary>Pages are being moved.</summary>
    Running,

    /// <summary>The vnode has its new home. Pages that could not be moved are told of.</summary>
    Done,

    /// <summary>It was cancelled: the vnode has its old home, pages that went stay where they went.</summary>
    Cancelled,

    /// <summary>The kernel refused: the vnode has its old home, pages that went stay where they went.</summary>
    Failed,
}

/// <summary>A move of a vnode.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="HostNodes">Where to.</param>
/// <param name="State">How it stands.</param>
/// <param name="Progress">From 0 to 1.</param>
/// <param name="MovedBytes">What has gone.</param>
/// <param name="Left">What stayed elsewhere though it was tried, by host node; told when it is over.</param>
/// <param name="Milliseconds">How long it took; 0 while it goes on.</param>
/// <param name="Message">Why it failed.</param>
public sealed record RehomeStatus(int Vnode, IReadOnlyList<int> HostNodes, RehomeState State, double Progress, ulong MovedBytes,
    IReadOnlyList<NodeBytes> Left, long Milliseconds, string? Message = null);

/// <summary>Memory on one host node.</summary>
/// <param name="Node">Number of the node.</param>
/// <param name="Bytes">Bytes.</param>
public sealed record NodeBytes(int Node, ulong Bytes);
