namespace Vmm.LifeCycle.Tests;

public sealed class VmLifeCycleTests
{
    private static readonly VmState[] s_states = Enum.GetValues<VmState>();
    private static readonly VmEvent[] s_events = Enum.GetValues<VmEvent>();
    private static readonly VmEvent[] s_ends = [VmEvent.Ended, VmEvent.Failed, VmEvent.Crashed];

    [Fact]
    public void Every_state_is_reached_from_the_first_one_and_every_event_is_possible_somewhere()
    {
        HashSet<VmState> reached = [VmState.Defined];
        Queue<VmState> open = new(reached);
        HashSet<VmEvent> used = [];
        while (open.TryDequeue(out VmState state))
        {
            foreach (VmEvent what in s_events)
            {
                if (VmLifeCycle.TryNext(state, what, out VmState next))
                {
                    used.Add(what);
                    if (reached.Add(next))
                    {
                        open.Enqueue(next);
                    }
                }
            }
        }

        Assert.Equal(s_states, reached.Order());
        Assert.Equal(s_events, used.Order());
    }

    [Fact]
    public void A_worker_may_die_and_a_guest_may_end_at_any_moment_and_what_has_no_worker_does_not_end()
    {
        foreach (VmState state in s_states)
        {
            foreach (VmEvent end in s_ends.Where(end => end != VmEvent.Crashed || state != VmState.Crashed))
            {
                bool possible = VmLifeCycle.TryNext(state, end, out VmState next);
                Assert.True(possible == state.IsAlive(hasWorker: true), $"{state} {end}");
                Assert.False(possible && next.IsAlive(hasWorker: false), $"{state} {end} {next}");
            }
        }
    }

    [Fact]
    public void Only_a_start_brings_to_life_what_has_no_worker_and_whatever_has_none_can_be_started()
    {
        foreach (VmState state in s_states.Where(state => !state.IsAlive(hasWorker: false)))
        {
            Assert.Equal(VmState.Starting, VmLifeCycle.Next(state, VmEvent.Start));
            // A stop of a crashed VM is one of its worker: the daemon asks for it only while there is one.
            Assert.DoesNotContain(s_events.Except([VmEvent.Start, VmEvent.Stop]), what =>
                VmLifeCycle.TryNext(state, what, out VmState next) && next.IsAlive(hasWorker: false));
        }
    }

    [Fact]
    public void Whatever_lives_can_be_stopped_but_a_start_which_is_cancelled()
    {
        foreach (VmState state in s_states)
        {
            bool possible = VmLifeCycle.TryNext(state, VmEvent.Stop, out VmState next);
            Assert.Equal(state.IsAlive(hasWorker: true) && state != VmState.Starting, possible);
            Assert.True(!possible || next == VmState.Stopping);
        }
    }

    /// <summary>What is whole in its folder is saved, whatever its worker was at when it ended, also under another vmmd.</summary>
    [Fact]
    public void A_vm_that_is_saved_is_so_wherever_its_worker_was() => Assert.All(s_states, state =>
        Assert.Equal(
            (state.IsAlive(hasWorker: false), state.IsAlive(hasWorker: false) ? VmState.Saved : default),
            (VmLifeCycle.TryNext(state, VmEvent.Saved, out VmState next), next)));

    [Fact]
    public void What_is_up_can_be_saved_and_moved_and_nothing_else() => Assert.All(s_states, state => Assert.Equal(
        (state.IsUp(), state.IsUp()),
        (VmLifeCycle.TryNext(state, VmEvent.Save, out _), VmLifeCycle.TryNext(state, VmEvent.Move, out _))));

    /// <summary>All that a machine can do: it uses the one table, and may not get more by a line that the daemon needs.</summary>
    [Fact]
    public void What_a_machine_uses_of_the_table()
    {
        VmEvent[] events = [VmEvent.Started, VmEvent.Paused, VmEvent.Resumed, VmEvent.Crashed, VmEvent.Ended];
        VmState[] states = [VmState.Starting, VmState.Running, VmState.Paused, VmState.Crashed, VmState.Stopped];
        List<string> moves = [];
        foreach (VmState state in states)
        {
            foreach (VmEvent what in events)
            {
                if (VmLifeCycle.TryNext(state, what, out VmState next))
                {
                    moves.Add($"{state} {what} {next}");
                }
            }
        }

        Assert.Equal(
            [
                "Starting Started Running", "Starting Crashed Crashed", "Starting Ended Stopped",
                "Running Paused Paused", "Running Crashed Crashed", "Running Ended Stopped",
                "Paused Resumed Running", "Paused Crashed Crashed", "Paused Ended Stopped",
                "Crashed Ended Stopped",
            ],
            moves);
    }

    [Fact]
    public void An_event_that_is_not_possible_is_an_error_with_the_state_and_the_event()
    {
        VmStateException error = Assert.Throws<VmStateException>(() => VmLifeCycle.Next(VmState.Stopped, VmEvent.Paused));
        Assert.Equal((VmState.Stopped, VmEvent.Paused), (error.State, error.Event));
        Assert.Equal("a VM that is Stopped cannot be paused", error.Message);
    }

    [Theory]
    [InlineData(ExitReason.PowerOff, VmState.Stopped)]
    [InlineData(ExitReason.Reset, VmState.Stopped)]
    [InlineData(ExitReason.DebugExit, VmState.Stopped)]
    [InlineData(ExitReason.Stopped, VmState.Stopped)]
    [InlineData(ExitReason.TripleFault, VmState.Failed)]
    [InlineData(ExitReason.Failed, VmState.Failed)]
    [InlineData(ExitReason.WorkerDied, VmState.Failed)]
    [InlineData(ExitReason.GuestPanicked, VmState.Crashed)]
    public void What_is_left_of_a_run_says_how_it_ended(ExitReason reason, VmState state) =>
        Assert.Equal(state, VmLifeCycle.After(reason));

    [Fact]
    public void It_links_no_other_project() => Assert.DoesNotContain(
        typeof(VmState).Assembly.GetReferencedAssemblies(), name => name.Name!.StartsWith("Vmm.", StringComparison.Ordinal));

    /// <summary>Words of the REST interface, of <c>/metrics</c> and of the inventory, also towards the previous release.</summary>
    [Fact]
    public void The_words_stay()
    {
        Assert.Equal(
            "defined starting running paused stopping stopped failed crashed saving saved migrating",
            string.Join(' ', s_states.Select(state => state.Word())));
        Assert.Equal(
            "Defined Starting Running Paused Stopping Stopped Failed Crashed Saving Saved Migrating",
            string.Join(' ', Enum.GetNames<VmState>()));
        Assert.Equal(
            "PowerOff Reset DebugExit TripleFault Stopped Failed WorkerDied GuestPanicked", string.Join(' ', Enum.GetNames<ExitReason>()));
    }
}
