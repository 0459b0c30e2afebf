using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Mem;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// Passes wishes about memory on to virtio-mem devices at the pace the guest can bear (<see cref="ShrinkPace"/>), by what its balloon
/// driver says. It looks every half second while something is to be given back, and not at all otherwise. Thread-safe.
/// </summary>
internal sealed class MemoryPacer : IDisposable
{
    private static readonly TimeSpan Quick = TimeSpan.FromSeconds(0.5), Calm = TimeSpan.FromSeconds(5);

    private readonly List<Paced> _devices = [];
    private readonly Func<VirtioBalloon?> _balloon;
    private readonly long _begin = TimeProvider.System.GetTimestamp();
    private readonly Lock _gate = new();
    private BalloonStatistics? _said;
    private TimeSpan _saidAt = TimeSpan.MinValue;
    private ITimer? _timer;
    private bool _disposed, _held;

    /// <summary>No devices yet.</summary>
    /// <param name="balloon">The balloon of the VM, whose guest tells what memory it has left; null when it has none.</param>
    internal MemoryPacer(Func<VirtioBalloon?> balloon) => _balloon = balloon;

    /// <summary>A device that asks for as much as it was made with.</summary>
    internal void Add(VirtioMem device)
    {
        Paced paced = new(device);
        paced.Pace.Begin(device.Info.Requested, forced: false, default, TimeSpan.Zero);
        _devices.Add(paced);
    }

    /// <summary>What was wished of a device, and how much of what it is still to give back it has not been asked for yet; bytes.</summary>
    internal (ulong Wanted, ulong HeldBack) StateOf(VirtioMem device)
    {
        lock (_gate)
        {
            ulong wanted = Of(device).Pace.Wanted, requested = device.Info.Requested;
            return (wanted, requested > wanted ? requested - wanted : 0);
        }
    }

    /// <summary>The guest shall have so much of a device's region.</summary>
    /// <param name="device">One of those added.</param>
    /// <param name="bytes">Whole blocks, at most the region.</param>
    /// <param name="force">Ask for it all at once, whatever the guest has left.</param>
    internal void Wish(VirtioMem device, ulong bytes, bool force)
    {
        lock (_gate)
        {
            Paced paced = Of(device);
            TimeSpan now = Now;
            paced.Ask(paced.Pace.Begin(bytes, force, Sample(device, now), now));
            Schedule(now);
        }
    }

    /// <summary>What was wished of a device, for saving.</summary>
    internal (ulong Wanted, bool Forced) WishOf(VirtioMem device)
    {
        lock (_gate)
        {
            return (Of(device).Pace.Wanted, Of(device).Pace.Forced);
        }
    }

    /// <summary>Takes a wish that was saved; the device asks for what it asked for then, until this goes on.</summary>
    internal void Restore(VirtioMem device, ulong wanted, bool forced)
    {
        lock (_gate)
        {
            _held = true;
            TimeSpan now = Now;
            Of(device).Pace.Begin(wanted, forced, Sample(device, now), now);
        }
    }

    /// <summary>From the return on it asks no device for anything, until <see cref="Resume"/>.</summary>
    internal void Hold()
    {
        lock (_gate)
        {
            _held = true;
        }
    }

    /// <summary>Goes on.</summary>
    internal void Resume()
    {
        lock (_gate)
        {
            _held = false;
            Schedule(Now);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            _timer?.Dispose();
        }
    }

    private TimeSpan Now => TimeProvider.System.GetElapsedTime(_begin);

    private Paced Of(VirtioMem device)
    {
        foreach (Paced paced in _devices)
        {
            if (ReferenceEquals(paced.Device, device))
            {
                return paced;
            }
        }

        throw new ArgumentException("not a device of this machine", nameof(device));
    }

    private ShrinkSample Sample(VirtioMem device, TimeSpan now)
    {
        BalloonStatistics? guest = _balloon()?.Info().Guest;
        if (!ReferenceEquals(guest, _said))
        {
            (_said, _saidAt) = (guest, now);
        }

        ulong promised = 0;
        foreach (Paced other in _devices)
        {
            VirtioMemInfo its = other.Device.Info;
            promised += !ReferenceEquals(other.Device, device) && its.Plugged > its.Requested ? its.Plugged - its.Requested : 0;
        }

        VirtioMemInfo info = device.Info;
        return new ShrinkSample(info.Plugged, info.Requested, device.BlockSize, guest?.AvailableBytes ?? guest?.FreeBytes,
            guest?.TotalBytes ?? 0, _saidAt, promised);
    }

    /// <summary>Looks again soon while a device still has to give something back; asks the guest what it has left meanwhile.</summary>
    private void Schedule(TimeSpan now)
    {
        bool waits = false, calm = true;
        foreach (Paced paced in _devices)
        {
            if (paced.Pace is { Forced: false } pace && paced.Device.Info.Plugged > pace.Wanted)
            {
                waits = true;
                calm &= pace.IsCalm(now);
            }
        }

        if (_disposed || _held || !waits || _balloon() is not { } balloon)
        {
            return;
        }

        balloon.RequestStatistics();
        _timer ??= TimeProvider.System.CreateTimer(
            static pacer => ((MemoryPacer)pacer!).Tick(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _timer.Change(calm ? Calm : Quick, Timeout.InfiniteTimeSpan);
    }

    private void Tick()
    {
        lock (_gate)
        {
            if (_disposed || _held)
            {
                return;
            }

            TimeSpan now = Now;
            foreach (Paced paced in _devices)
            {
                paced.Ask(paced.Pace.Next(Sample(paced.Device, now), now));
            }

            Schedule(now);
        }
    }

    private sealed class Paced(VirtioMem device)
    {
        internal VirtioMem Device => device;

        internal ShrinkPace Pace { get; } = new();

        /// <summary>Only what is new: every telling interrupts the driver's work on the last wish.</summary>
        internal void Ask(ulong bytes)
        {
            if (device.Info.Requested != bytes)
            {
                device.SetRequested(new ByteSize(bytes));
            }
        }
    }
}
