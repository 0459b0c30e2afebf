using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>A daemon dies in the middle of a vm upgrade; what the next one makes of what it finds.</summary>
public sealed class UpgradeSettlingTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly MoveRecord s_move = MoveRecord.Begin(MoveKind.Upgrade, wasPaused: false);

    private DaemonFixture _daemon = null!;
    private FakeWorker _first = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await _daemon.CreateAsync("web1");
        await _daemon.Client.DoAsync("web1", "start", s_none);
        _first = _daemon.Workers.Alive.Values.Single();
        await _daemon.StopDaemonAsync();
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    [Theory]
    [InlineData(MoveStep.Begun, false)]
    [InlineData(MoveStep.Begun, true)]
    [InlineData(MoveStep.Committed, false)]
    [InlineData(MoveStep.Committed, true)]
    [InlineData(MoveStep.SourceGone, true)]
    public async Task One_worker_is_left_with_the_names_of_the_vm_and_runs(MoveStep step, bool started)
    {
        FakeWorker second = Leave(step, started ? VmState.Running : VmState.Starting);
        if (step == MoveStep.SourceGone)
        {
            _first.End(new WorkerExit(ExitReason.Stopped, 0, null));
        }

        await _daemon.StartDaemonAsync();
        bool stays = step == MoveStep.Begun;
        FakeWorker kept = stays ? _first : second, other = stays ? second : _first;
        await DaemonFixture.UntilAsync(() => other.Ended.IsCompleted && kept is { State: VmState.Running, MoveId: null });
        await DaemonFixture.UntilAsync(() => _daemon.Record().Move is null);
        Assert.Same(kept, Assert.Single(_daemon.Workers.Alive).Value);
        VmInfo vm = await _daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Running, kept.ProcessId, null), (vm.State, vm.WorkerProcessId!.Value, vm.LastExit));
        Assert.Equal(stays ? ["cancel"] : [], kept.Moving.Calls);

        await _daemon.RestartAsync(); // and the one after that finds nothing to do
        Assert.Equal(VmState.Running, await _daemon.StateSoonAsync("web1", VmState.Running));
        Assert.Same(kept, Assert.Single(_daemon.Workers.Alive).Value);
        JobInfo again = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none));
        Assert.Equal(JobState.Done, again.State);
    }

    [Fact]
    public async Task A_paused_vm_that_was_handed_over_stays_paused()
    {
        FakeWorker second = Leave(MoveStep.Committed, VmState.Paused);
        await _daemon.StartDaemonAsync();
        Assert.Equal(VmState.Paused, await _daemon.StateSoonAsync("web1", VmState.Paused));
        await DaemonFixture.UntilAsync(() => _daemon.Record().Move is null);
        Assert.Equal((VmState.Paused, true), (second.State, _first.Ended.IsCompleted));
    }

    [Fact]
    public async Task A_daemon_that_died_between_the_names_and_its_note_of_them_leaves_the_new_worker()
    {
        FakeWorker second = Leave(MoveStep.SourceGone, VmState.Running);
        _first.End(new WorkerExit(ExitReason.Stopped, 0, null));
        second.TakeNames();
        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _daemon.Record().Move is null);
        Assert.Same(second, Assert.Single(_daemon.Workers.Alive).Value);
        Assert.Equal(VmState.Running, (await _daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_committed_move_whose_new_worker_is_gone_does_not_go_back()
    {
        FakeWorker second = Leave(MoveStep.Committed, VmState.Running);
        second.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _first.Ended.IsCompleted && _daemon.Record().Move is null);
        Assert.Equal(VmState.Failed, (await _daemon.Client.ShowAsync("web1", s_none)).State);
        Assert.Empty(_daemon.Workers.Alive);
    }

    [Fact]
    public void Whatever_is_found_at_most_one_counts_and_never_one_of_the_wrong_side()
    {
        FakeWorker Named() => new("a", 1, () => { });
        FakeWorker Moved() => new("a", 2, () => { }) { MoveId = s_move.Id };
        FakeWorker Stranger() => new("a", 3, () => { }) { MoveId = Guid.NewGuid().ToString("N") };
        foreach (MoveRecord? move in (MoveRecord?[])[null, .. Enum.GetValues<MoveStep>().Select(step => s_move with { Step = step })])
        {
            for (int found = 0; found < 8; found++)
            {
                IWorker[] workers =
                    [.. (IEnumerable<IWorker>)[.. Any(found & 1, Named), .. Any(found & 2, Moved), .. Any(found & 4, Stranger)]];
                (IWorker? keep, IReadOnlyList<IWorker> others) = WorkerChoice.Of(move, workers);
                Assert.Equal(workers.Length, others.Count + (keep is null ? 0 : 1));
                Assert.DoesNotContain(keep, others);
                Assert.NotEqual(3, keep?.ProcessId);
                bool committed = move is { Step: MoveStep.Committed or MoveStep.SourceGone };
                Assert.False(keep?.ProcessId == 2 && !committed);
                Assert.False(keep?.ProcessId == 1 && move is { Step: MoveStep.Committed });
                int counts = move is { Step: MoveStep.Committed } ? 2 : committed ? 3 : 1;
                Assert.Equal((found & counts) != 0, keep is not null);
            }
        }
    }

    private static IEnumerable<IWorker> Any(int wanted, Func<FakeWorker> worker) => wanted != 0 ? [worker()] : [];

    private FakeWorker Leave(MoveStep step, VmState state)
    {
        MoveRecord move = s_move with { Step = step, WasPaused = state == VmState.Paused };
        _daemon.LeaveRecord(record => record with { Move = move });
        Assert.Equal(move, _daemon.Record().Move);
        return _daemon.Workers.Add(_first.VmId, move.Id, new VmSpec { Name = "web1" }, state);
    }
}
