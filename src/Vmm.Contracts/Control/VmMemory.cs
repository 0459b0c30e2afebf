namespace Vmm.Contracts.Control;

/// <summary>A wish about the memory of a running VM; what is null stays as it is.</summary>
/// <param name="Vnode">The vnode <paramref name="Bytes"/> is about; null is vnode 0.</param>
/// <param name="Bytes">All memory the vnode shall have.</param>
/// <param name="BalloonBytes">Size the balloon shall have.</param>
/// <param name="Auto">True: from now on vmmd's balancer decides about the vnode again, as before somebody gave it a size. Not for
/// workers.</param>
/// <param name="Force">True: the guest is asked for all of it at once, whatever it has left for itself.</param>
public sealed record MemoryWish(int? Vnode = null, ulong? Bytes = null, ulong? BalloonBytes = null, bool? Auto = null, bool? Force = null);

/// <summary>The memory of a running VM.</summary>
/// <param name="Vnodes">One entry per vnode.</param>
/// <param name="Balloon">Null when the VM has no balloon.</param>
public sealed record VmMemory(IReadOnlyList<VnodeMemoryInfo> Vnodes, BalloonMemoryInfo? Balloon)
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
