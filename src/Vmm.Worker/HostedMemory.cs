using Vmm.Contracts.Control;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Machine.Run;
using Vmm.Memory;

namespace Vmm.Worker;

/// <summary>The memory of the VM of this worker, as the daemon asks for it.</summary>
/// <param name="machine">The machine.</param>
/// <param name="paging">Its pager.</param>
internal sealed class HostedMemory(VirtualMachine machine, HostedPaging paging)
{
    private readonly HostReason _whyBalloon = new();

    /// <summary>The memory of the VM as it is.</summary>
    internal VmMemory Now
    {
        get
        {
            List<VnodeMemoryInfo> vnodes = [];
            foreach (VnodeMemoryState vnode in machine.VnodeStates)
            {
                ulong stuck = vnode.Present > vnode.Asked ? vnode.Present - vnode.Asked : 0;
                vnodes.Add(
                    new VnodeMemoryInfo(vnode.Vnode, vnode.Least, vnode.Most, vnode.Asked, vnode.Present, stuck,
                        vnode.Driven, vnode.Block, vnode.Below, vnode.HeldBack));
            }

            BalloonInfo? balloon = machine.Balloon?.Info();
            machine.Balloon?.RequestStatistics(); // for who asks next
            return new VmMemory(vnodes, balloon is null ? null : Describe(balloon), paging.Info);
        }
    }

    /// <summary>Passes a wish on to the guest, when there is one.</summary>
    /// <returns>The memory as it is then.</returns>
    /// <exception cref="RequestException">It cannot be fulfilled whatever the guest does.</exception>
    internal VmMemory Take(MemoryWish? wish)
    {
        if (wish is not null)
        {
            Set(wish);
        }

        return Now;
    }

    /// <summary>Passes a wish on to the guest.</summary>
    /// <exception cref="RequestException">It cannot be fulfilled whatever the guest does.</exception>
    internal void Set(MemoryWish wish)
    {
        if (wish.BalloonBytes is not null && machine.Balloon is null)
        {
            throw new RequestException(ControlCodes.NoBalloon, "the VM has no balloon: give it one in its spec (balloon: true)");
        }

        try
        {
            if (wish is { Bytes: { } size, BalloonBytes: not null } && machine.VnodeStates is [var only] && size < only.Least)
            {
                throw new VnodeMemoryException(
                    $"{new ByteSize(size)} is below {only.Least}, which only the balloon reaches: "
                    + "give either the size of the vnode or that of the balloon");
            }

            if (wish.ResidentBytes is { } resident)
            {
                paging.SetLimit(resident, wish.Reason);
            }

            if (wish.Bytes is { } bytes)
            {
                machine.SetVnodeMemory(wish.Vnode ?? 0, new ByteSize(bytes), wish.Force == true);
            }

            if (wish.BalloonBytes is { } balloon)
            {
                machine.SetBalloon(balloon);
                _whyBalloon.Set(wish.Reason);
            }
        }
        catch (VnodeMemoryException cause)
        {
            throw new RequestException(ControlCodes.MemoryImpossible, cause.Message, cause);
        }
    }

    private BalloonMemoryInfo Describe(BalloonInfo balloon)
    {
        BalloonStatistics? said = balloon.Guest;
        long? age = said is null ? null : Math.Max(0, (long)(DateTimeOffset.UtcNow - said.At).TotalMilliseconds);
        (string? reason, DateTimeOffset? since) = _whyBalloon.Now;
        return new BalloonMemoryInfo(balloon.TargetBytes, balloon.ActualBytes, balloon.HeldBytes, said?.FreeBytes, said?.AvailableBytes,
            said?.TotalBytes, age, reason, since);
    }
}
