using Vmm.Interop.Kvm;
using Vmm.Kvm;

namespace Vmm.Machine.Run;

/// <summary>
/// The time that passes for the guest: it stands still while the machine is paused. Devices that count time count this one; kvmclock is set
/// back to it when the machine goes on. The TSC runs on, as it does on every host: nothing can stop it.
/// </summary>
/// <remarks><see cref="Stop"/> and <see cref="Start"/> take turns and come while no vCPU runs; the time may be read by any
/// thread.</remarks>
internal sealed class GuestClock(KvmVm vm) : TimeProvider
{
    private KvmClockData _kvmClock;
    private long _stoppedFor; // timestamps of the host that were no time of the guest
    private long _stoppedAt = long.MaxValue; // a timestamp of the host; the greatest: it runs

    public override long GetTimestamp() =>
        Math.Min(TimeProvider.System.GetTimestamp(), Volatile.Read(ref _stoppedAt)) - Volatile.Read(ref _stoppedFor);

    /// <summary>Stops it; every vCPU stands still.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    internal void Stop()
    {
        _kvmClock = vm.GetClock();
        Volatile.Write(ref _stoppedAt, TimeProvider.System.GetTimestamp());
    }

    /// <summary>What kvmclock showed when it was stopped.</summary>
    internal KvmClockData KvmClock => _kvmClock;

    /// <summary>The time in nanoseconds.</summary>
    internal ulong Nanoseconds => (ulong)((Int128)GetTimestamp() * 1_000_000_000 / TimestampFrequency);

    /// <summary>Stopped, at times that were saved.</summary>
    internal void StopAt(in KvmClockData kvmClock, ulong nanoseconds)
    {
        long now = TimeProvider.System.GetTimestamp();
        _kvmClock = kvmClock;
        Volatile.Write(ref _stoppedFor, now - (long)((UInt128)nanoseconds * (ulong)TimestampFrequency / 1_000_000_000));
        Volatile.Write(ref _stoppedAt, now);
    }

    /// <summary>Lets it go on from where it was stopped; no vCPU runs yet.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    internal void Start()
    {
        vm.SetClock(_kvmClock);
        _stoppedFor += TimeProvider.System.GetTimestamp() - _stoppedAt;
        Volatile.Write(ref _stoppedAt, long.MaxValue);
    }
}
