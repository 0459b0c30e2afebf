using Vmm.Machine.Numa;

namespace Vmm.Machine.Tests.Run;

public sealed class MoveGateTests
{
    [Fact]
    public async Task A_move_stands_still_while_it_is_held_and_goes_on_or_ends_with_the_machine()
    {
        MoveGate gate = new();
        int slices = 0;
        bool stop = false;
        Task move = Task.Run(() =>
        {
            Assert.True(gate.TryEnter());
            while (!Volatile.Read(ref stop))
            {
                Interlocked.Increment(ref slices);
                gate.Pass();
            }

            gate.Leave();
        });
        for (int i = 0; i < 50; i++)
        {
            int before = Volatile.Read(ref slices);
            SpinWait.SpinUntil(() => Volatile.Read(ref slices) > before + 1);
            gate.Hold(CancellationToken.None);
            int held = Volatile.Read(ref slices);
            await Task.Delay(1);
            Assert.Equal(held, Volatile.Read(ref slices));
            if (i == 49)
            {
                stop = true;
                gate.End();
                break;
            }

            gate.Resume();
        }

        await move;
        Assert.False(gate.TryEnter()); // still held
        gate.Resume();
        Assert.True(gate.TryEnter());
    }

    [Fact]
    public void A_hold_that_gives_up_lets_the_move_go_on()
    {
        MoveGate gate = new();
        Assert.True(gate.TryEnter());
        using CancellationTokenSource soon = new(TimeSpan.FromMilliseconds(50));
        Assert.Throws<OperationCanceledException>(() => gate.Hold(soon.Token));
        gate.Pass(); // does not wait
        gate.Leave();
        gate.Hold(CancellationToken.None);
    }
}
