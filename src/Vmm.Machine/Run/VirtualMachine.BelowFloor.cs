using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <content>
/// Memory below what a vnode started with. A virtio-mem device cannot take that; the balloon can. It is one for the whole VM and takes pages from wherever the
/// guest likes: it stands for a vnode only when there is just one.
/// </content>
public sealed partial class VirtualMachine
{
    private readonly Lock _balloonLock = new();
    private ulong _balloonBefore; // the target that stands again when no size needs the balloon
    private ulong _below;         // how far a size goes below the floor
    private bool _returning;      // a size did, and the guest has not taken back all of it yet

    private bool BalloonReachesBelow => Balloon is not null && _spec.EffectiveVnodes.Count == 1;

    /// <summary>Gives the balloon a target; a size below the vnode's floor that it was made to reach is forgotten. Any thread.</summary>
    /// <param name="bytes">Size of the balloon.</param>
    /// <exception cref="VnodeMemoryException">The VM has no balloon.</exception>
    public void SetBalloon(ulong bytes)
    {
        if (Balloon is not { } balloon)
        {
            throw new VnodeMemoryException($"{_spec.Name} has no balloon: give it one in its spec (balloon: true)");
        }

        lock (_balloonLock)
        {
            (_below, _returning) = (0, false);
            balloon.SetTarget(bytes);
        }
    }

    /// <summary>A size of the vnode that is below its floor, or again at it and above.</summary>
    private void SetBelow(VnodeSpec vnode, ByteSize size)
    {
        ulong below = size < vnode.BootMemory ? vnode.BootMemory - size : 0;
        if (Balloon is not { } balloon || !BalloonReachesBelow)
        {
            return;
        }

        lock (_balloonLock)
        {
            if (below == 0 && _below == 0)
            {
                return;
            }

            if (_below == 0)
            {
                _balloonBefore = balloon.Info().TargetBytes;
            }

            (_below, _returning) = (below, true);
            balloon.SetTarget(below > 0 ? below : _balloonBefore);
        }
    }

    /// <summary>How much of the only vnode the balloon was asked to take for its size, and has.</summary>
    private (ulong Asked, ulong Taken) Below()
    {
        if (Balloon is not { } balloon)
        {
            return default;
        }

        lock (_balloonLock)
        {
            ulong actual = balloon.Info().ActualBytes;
            if (_below > 0)
            {
                return (_below, actual);
            }

            // On the way back: what is still in the balloon beyond its own target is not there yet.
            ulong taken = _returning && actual > _balloonBefore ? actual - _balloonBefore : 0;
            _returning = taken > 0;
            return (0, taken);
        }
    }
}
