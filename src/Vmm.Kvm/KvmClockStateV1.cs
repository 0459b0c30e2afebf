using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// kvmclock, and what the host's clocks showed at the same moment where the kernel tells (KVM_CLOCK_REALTIME, KVM_CLOCK_HOST_TSC). Its
/// shape never changes.
/// </summary>
public sealed record KvmClockStateV1
{
    /// <summary>Names this record in a saved VM.</summary>
    public const string Kind = "kvm-clock";

    /// <summary>Version of this record.</summary>
    public const int Version = 1;

    private const uint HasRealtime = 4, HasHostTsc = 8; // KVM_CLOCK_REALTIME, KVM_CLOCK_HOST_TSC

    /// <summary>Nanoseconds of kvmclock.</summary>
    public required ulong Nanoseconds { get; init; }

    /// <summary>CLOCK_REALTIME of the host in nanoseconds.</summary>
    public ulong? Realtime { get; init; }

    /// <summary>TSC of the host.</summary>
    public ulong? HostTsc { get; init; }

    /// <summary>The record of a reading.</summary>
    public static KvmClockStateV1 Of(in KvmClockData clock) => new()
    {
        Nanoseconds = clock.Clock,
        Realtime = (clock.Flags & HasRealtime) != 0 ? clock.Realtime : null,
        HostTsc = (clock.Flags & HasHostTsc) != 0 ? clock.HostTsc : null,
    };

    /// <summary>The reading; to be given to <see cref="KvmVm.SetClock"/>, with which no time has passed meanwhile.</summary>
    public KvmClockData ToReading() => new() { Clock = Nanoseconds };
}
