using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>The units of a machine, for people: also while an operation on all of them hangs. Any thread.</summary>
/// <param name="machine">The machine.</param>
public sealed class UnitReport(VirtualMachine machine)
{
    private volatile UnitRegistry? _moved;

    /// <summary>The units now.</summary>
    public MachineUnitsView Now
    {
        get
        {
            if (_moved is { } moved)
            {
                return new MachineUnitsView(moved.Operation, Moved: true, moved.Describe());
            }

            // Nothing moves them: what stands still does so as a whole.
            bool atRest = machine.State is not VmState.Running;
            return new MachineUnitsView(null, Moved: false, MachineUnits.Present(machine, atRest).Describe());
        }
    }

    /// <summary>An operation has these units from now on.</summary>
    internal void Begin(UnitRegistry units) => _moved = units;

    /// <summary>It is over.</summary>
    internal void End() => _moved = null;
}

/// <summary>The units of a machine at one moment.</summary>
/// <param name="Operation">What goes on with all of them; null: nothing.</param>
/// <param name="Moved">An operation has them, or holds them at rest: the times of the views are its.</param>
/// <param name="Units">The units.</param>
public sealed record MachineUnitsView(string? Operation, bool Moved, IReadOnlyList<UnitView> Units);
