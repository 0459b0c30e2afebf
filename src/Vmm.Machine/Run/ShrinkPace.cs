namespace Vmm.Machine.Run;

/// <summary>What is known of a virtio-mem device and its guest at one moment.</summary>
/// <param name="Plugged">What the guest has of the device's region, bytes.</param>
/// <param name="Requested">What the device asks the guest to have of it, bytes.</param>
/// <param name="Block">Both change by multiples of this, bytes.</param>
/// <param name="Available">Memory the guest's programs could get, bytes, as it said last; null when it never did.</param>
/// <param name="Total">All memory the guest counts, bytes.</param>
/// <param name="SaidAt">When it said so; a clock that only goes forward, that of the caller.</param>
/// <param name="Promised">What its other devices are still asked to give back, bytes: that will not be available any more either.</param>
internal readonly record struct ShrinkSample(
    ulong Plugged, ulong Requested, ulong Block, ulong? Available, ulong Total, TimeSpan SaidAt, ulong Promised = 0);

/// <summary>
/// How a guest is brought to give memory back without being driven out of memory. A virtio-mem driver that is asked for more than its guest
/// can spare goes on moving pages until the kernel has none left for itself: a stock Debian guest panicked in a fork that way. So the
/// device asks only for what leaves the guest a reserve, by the guest's own account, and for more once there is more. A guest that gives no
/// account is asked for all of it. Not thread-safe.
/// </summary>
internal sealed class ShrinkPace
{
    /// <summary>A guest that neither says anything nor gives anything for so long has no memory to do either.</summary>
    internal static readonly TimeSpan Silence = TimeSpan.FromSeconds(30);

    /// <summary>How long it is left alone after it was asked for too much; doubled each time, up to <see cref="LongestRest"/>.</summary>
    internal static readonly TimeSpan FirstRest = TimeSpan.FromSeconds(15);

    /// <summary>See <see cref="FirstRest"/>.</summary>
    internal static readonly TimeSpan LongestRest = TimeSpan.FromMinutes(4);

    private ulong _lastPlugged;
    private TimeSpan _progressAt, _reachedAt, _restUntil, _rest = FirstRest;
    private bool _reached;

    /// <summary>What the guest shall have in the end, bytes of the region.</summary>
    internal ulong Wanted { get; private set; }

    /// <summary>It is asked for all of it, whatever it has left.</summary>
    internal bool Forced { get; private set; }

    /// <summary>What a guest keeps available, bytes: a sixteenth of what it has, at least 64 MiB and at most 512 MiB.</summary>
    internal static ulong Reserve(ulong total) => Math.Clamp(total / 16, 64UL << 20, 512UL << 20);

    /// <summary>Nothing has moved for a while: there is no hurry to look again.</summary>
    internal bool IsCalm(TimeSpan now) => now - _progressAt > TimeSpan.FromMinutes(1);

    /// <summary>A new wish; returns what to ask of the guest now.</summary>
    internal ulong Begin(ulong wanted, bool forced, ShrinkSample sample, TimeSpan now)
    {
        (Wanted, Forced, _rest, _restUntil) = (wanted, forced, FirstRest, TimeSpan.MinValue);
        (_lastPlugged, _progressAt, _reached) = (sample.Plugged, now, false);
        return Next(sample, now);
    }

    /// <summary>What to ask of the guest from now on.</summary>
    internal ulong Next(ShrinkSample sample, TimeSpan now)
    {
        if (sample.Plugged != _lastPlugged)
        {
            (_lastPlugged, _progressAt) = (sample.Plugged, now);
        }

        if (Forced || sample.Available is not { } available || Wanted >= sample.Plugged)
        {
            return Wanted;
        }

        ulong reserve = Reserve(sample.Total);
        if (sample.Plugged > sample.Requested)
        {
            _reached = false;
            bool silent = now - (sample.SaidAt > _progressAt ? sample.SaidAt : _progressAt) >= Silence;
            if (available >= reserve / 2 && !silent)
            {
                return Math.Max(Wanted, sample.Requested); // it is at work
            }

            _restUntil = now + _rest;
            _rest = _rest * 2 < LongestRest ? _rest * 2 : LongestRest;
            return sample.Plugged;
        }

        if (!_reached)
        {
            (_reached, _reachedAt) = (true, now);
        }

        // What it said before it had given the last part counts memory that is gone.
        ulong room = available > reserve + sample.Promised ? (available - reserve - sample.Promised) / sample.Block * sample.Block : 0;
        if (sample.SaidAt <= _reachedAt || now < _restUntil || room == 0)
        {
            return sample.Plugged;
        }

        _reached = false;
        return sample.Plugged - Math.Min(room, sample.Plugged - Wanted);
    }
}
