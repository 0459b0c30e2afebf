using Vmm.Devices.Virtio.Balloon;

namespace Vmm.Machine.Ram;

/// <summary>Memory below what the only vnode started with. A virtio-mem device cannot take that; the balloon can. Any thread.</summary>
internal sealed class BalloonFloor(VirtioBalloon balloon)
{
    private readonly Lock _gate = new();
    private ulong _before;    // the target that stands again when no size needs the balloon
    private ulong _below;     // how far a size goes below the floor
    private bool _returning;  // a size did, and the guest has not taken back all of it yet

    /// <summary>How much of the vnode the balloon was asked to take for its size, and has.</summary>
    internal (ulong Asked, ulong Taken) Now
    {
        get
        {
            lock (_gate)
            {
                ulong actual = balloon.Info().ActualBytes;
                if (_below > 0)
                {
                    return (_below, actual);
                }

                // On the way back: what is still in the balloon beyond its own target is not there yet.
                ulong taken = _returning && actual > _before ? actual - _before : 0;
                _returning = taken > 0;
                return (0, taken);
            }
        }
    }

    /// <summary>A size of the vnode that is below its floor by so much, or again at it and above.</summary>
    internal void Set(ulong below)
    {
        lock (_gate)
        {
            if (below == 0 && _below == 0)
            {
                return;
            }

            if (_below == 0)
            {
                _before = balloon.Info().TargetBytes;
            }

            (_below, _returning) = (below, true);
            balloon.SetTarget(below > 0 ? below : _before);
        }
    }

    /// <summary>What it knows beside the balloon, for saving, and taken back from there.</summary>
    internal (ulong Below, ulong Before, bool Returning) Memory
    {
        get
        {
            lock (_gate)
            {
                return (_below, _before, _returning);
            }
        }

        set
        {
            lock (_gate)
            {
                (_below, _before, _returning) = value;
            }
        }
    }

    /// <summary>A target of its own: what a size asked for is forgotten.</summary>
    internal void SetTarget(ulong bytes)
    {
        lock (_gate)
        {
            (_below, _returning) = (0, false);
            balloon.SetTarget(bytes);
        }
    }
}
