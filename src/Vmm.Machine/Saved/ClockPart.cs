using Vmm.Kvm;
using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>kvmclock and the time of devices as a unit: no time passes for the guest while it is saved.</summary>
/// <param name="clock">The guest's clock, stopped.</param>
internal sealed class ClockPart(GuestClock clock) : IMachinePart
{
    /// <inheritdoc/>
    public PartId Id { get; } = new("clock");

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => [];

    /// <inheritdoc/>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline) => ValueTask.CompletedTask;

    /// <inheritdoc/>
    public void Resume()
    {
        // The machine starts it with the vCPUs.
    }

    /// <inheritdoc/>
    public void Save(StateWriter to)
    {
        to.Write(KvmStates.Clock, KvmClockStateV1.Of(clock.KvmClock));
        to.Write(MachineStates.GuestTime, new GuestTimeStateV1 { Nanoseconds = clock.Nanoseconds });
    }

    /// <inheritdoc/>
    public void Restore(StateReader from) =>
        clock.StopAt(from.Read(KvmStates.Clock).ToReading(), from.Read(MachineStates.GuestTime).Nanoseconds);

    /// <inheritdoc/>
    public string Describe() => "clock";
}
