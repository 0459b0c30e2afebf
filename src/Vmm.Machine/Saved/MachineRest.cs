using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// A machine whose vCPUs stand still and whose units have nothing in flight: it can be saved, and its saved state stays true until the rest
/// is ended.
/// </summary>
public sealed class MachineRest
{
    private readonly VirtualMachine _machine;
    private readonly object? _pausedBy;

    private MachineRest(VirtualMachine machine, UnitRegistry units, bool ran, object? pausedBy) =>
        (_machine, Units, Ran, _pausedBy) = (machine, units, ran, pausedBy);

    /// <summary>It ran before; otherwise it was paused.</summary>
    internal bool Ran { get; }

    /// <summary>Its units, at rest.</summary>
    internal UnitRegistry Units { get; }

    /// <summary>Brings a machine that runs or is paused to rest; when that fails it is as it was before.</summary>
    /// <param name="machine">The machine.</param>
    /// <param name="time">How long its devices may take.</param>
    /// <param name="cancel">Gives up.</param>
    /// <exception cref="VmStateException">It neither runs nor is paused.</exception>
    /// <exception cref="UnitsException">Parts of it did not come to rest.</exception>
    /// <exception cref="StateException">It cannot be saved at this moment.</exception>
    internal static async Task<MachineRest> BeginAsync(VirtualMachine machine, TimeSpan time, CancellationToken cancel)
    {
        machine.DeviceSet.ThrowIfShared(); // before it stands still for nothing
        bool ran = machine.State == VmState.Running;
        if (ran)
        {
            machine.Pause();
        }
        else if (machine.State != VmState.Paused)
        {
            throw new VmStateException(machine.State, VmEvent.Save);
        }

        if (!ran)
        {
            machine.DeviceSet.ThrowIfWaiting(); // before anything moves: what is kept is not tried again for this
        }

        object? pausedBy = machine.ClaimPause(); // nobody lets it go on beneath the rest
        try
        {
            if (machine.VcpuSet.HasPendingIo)
            {
                throw new StateException($"{machine.Spec.Name}: a vCPU is amid a very long input or output instruction; try again.");
            }

            UnitRegistry units = MachineUnits.Of(machine, atRest: false);
            machine.Units.Begin(units);
            await units.QuiesceAsync(Quiesce.Drain, time, cancel).ConfigureAwait(false);
            return new MachineRest(machine, units, ran, pausedBy);
        }
        catch
        {
            machine.Units.End();
            GoOn(machine, ran, pausedBy);
            throw;
        }
    }

    /// <summary>The machine is as it was before: it runs on, or is paused.</summary>
    public void End()
    {
        Units.Resume();
        _machine.Units.End();
        GoOn(_machine, Ran, _pausedBy);
    }

    private static void GoOn(VirtualMachine machine, bool ran, object? pausedBy)
    {
        if (ran)
        {
            machine.Resume();
        }
        else
        {
            machine.HoldDevices(); // a paused machine's devices rest, and the units just went on
            machine.ReturnPause(pausedBy);
        }
    }
}
