using Vmm.Machine.Run;

namespace Vmm.Machine.Tests.Run;

public sealed class MachineLifecycleTests
{
    [Fact]
    public void Only_the_moves_of_the_table_exist()
    {
        (MachineState, MachineState)[] moves =
        [
            (MachineState.Ready, MachineState.Running), (MachineState.Running, MachineState.Paused),
            (MachineState.Paused, MachineState.Running),
            (MachineState.Running, MachineState.Crashed), (MachineState.Paused, MachineState.Crashed),
            (MachineState.Ready, MachineState.Ended), (MachineState.Running, MachineState.Ended), (MachineState.Paused, MachineState.Ended),
            (MachineState.Crashed, MachineState.Ended),
        ];
        foreach (MachineState from in Enum.GetValues<MachineState>())
        {
            foreach (MachineState to in Enum.GetValues<MachineState>())
            {
                Assert.Equal(moves.Contains((from, to)), MachineLifecycle.CanMove(from, to));
            }
        }

        MachineStateException error = new(MachineState.Ready, MachineState.Paused);
        Assert.Contains("Ready", error.Message, StringComparison.Ordinal);
        Assert.Contains("Paused", error.Message, StringComparison.Ordinal);
    }
}
