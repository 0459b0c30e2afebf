using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

public sealed class RestartTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly TimeSpan s_moment = TimeSpan.FromMilliseconds(5), s_hour = TimeSpan.FromHours(1);

    [Fact]
    public void The_plan_follows_the_policy()
    {
        foreach ((RestartPolicy policy, ExitReason reason, bool again) in new[]
        {
            (RestartPolicy.Never, ExitReason.Failed, false), (RestartPolicy.Never, ExitReason.WorkerDied, false),
            (RestartPolicy.Never, ExitReason.Reset, true),
            (RestartPolicy.Never, ExitReason.PowerOff, false), (RestartPolicy.OnFailure, ExitReason.TripleFault, true),
            (RestartPolicy.OnFailure, ExitReason.WorkerDied, true),
            (RestartPolicy.OnFailure, ExitReason.PowerOff, false), (RestartPolicy.Always, ExitReason.PowerOff, true),
            (RestartPolicy.Always, ExitReason.Stopped, false),
            (RestartPolicy.Always, ExitReason.DebugExit, true), (RestartPolicy.Never, ExitReason.GuestPanicked, false),
            (RestartPolicy.OnFailure, ExitReason.GuestPanicked, true),
            (RestartPolicy.Always, ExitReason.GuestPanicked, true),
        })
        {
            Assert.Equal(
                again, new RestartPlan().After(new VmSpec { Restart = policy }, new WorkerExit(reason, 0, null), s_hour) is not null);
        }
    }

    [Fact]
    public void What_a_panic_or_a_reboot_leads_to_can_be_said_apart_from_other_ends()
    {
        VmSpec never = new() { OnCrash = CrashPolicy.Restart, OnReboot = RebootPolicy.Stop },
            always = never with { Restart = RestartPolicy.Always };
        WorkerExit panic = new(ExitReason.GuestPanicked, 1, null), reset = new(ExitReason.Reset, 0, null),
            failed = new(ExitReason.Failed, 1, null);
        Assert.NotNull(new RestartPlan().After(never, panic, s_hour));
        Assert.Null(new RestartPlan().After(never, failed, s_hour));
        Assert.Null(new RestartPlan().After(never, reset, s_hour));
        Assert.NotNull(new RestartPlan().After(always, reset, s_hour)); // however it ended
    }

    [Fact]
    public void Failures_in_a_row_are_waited_for_longer_and_longer_up_to_a_minute()
    {
        RestartPlan plan = new();
        WorkerExit died = new(ExitReason.WorkerDied, 1, null);
        Assert.Equal([1, 2, 4, 8, 16, 32, 60, 60], Enumerable.Range(0, 8)
            .Select(_ => plan.After(new VmSpec { Restart = RestartPolicy.OnFailure }, died, s_moment)!.Value.TotalSeconds));
        Assert.Equal(1, plan.After(new VmSpec { Restart = RestartPolicy.OnFailure }, died, s_hour)!.Value.TotalSeconds);
        Assert.Equal(9, plan.Restarts);
        plan.Reset();
        Assert.Equal(0, plan.Restarts);
    }

    [Fact]
    public void Reboots_are_at_once_unless_they_never_end()
    {
        RestartPlan plan = new();
        WorkerExit reset = new(ExitReason.Reset, 0, null);
        Assert.Equal([0, 0, 0, 1, 2, 4], Enumerable.Range(0, 6)
            .Select(_ => plan.After(new VmSpec { Restart = RestartPolicy.Never }, reset, s_moment)!.Value.TotalSeconds));
        Assert.Equal(0, plan.After(new VmSpec { Restart = RestartPolicy.Never }, reset, s_hour)!.Value.TotalSeconds);
    }

    [Fact]
    public async Task A_guest_that_reboots_comes_back_in_a_new_worker_and_listeners_hear_of_it()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.Alive.Values.Single().End(new WorkerExit(ExitReason.Reset, 0, null));
        VmInfo vm = await UntilAsync(daemon, v => v is { State: VmState.Running, Restarts: 1 });
        Assert.Equal(ExitReason.Reset, vm.LastExit!.Reason);
        EventList events = await daemon.Client.EventsOfAsync("web1", s_none);
        Assert.Equal(["created", "state", "state", "state", "ended", "restart", "state", "state"], events.Events.Select(e => e.Kind));
        await daemon.Client.DoAsync("web1", "stop", s_none);
        await Task.Delay(50);
        Assert.Equal(VmState.Stopped, (await daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_dead_worker_is_replaced_when_the_spec_says_so_and_a_stop_ends_the_waiting()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: on-failure\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.RefuseLaunch = new WorkerException("disk-open-failed", "not now");
        daemon.Workers.Alive.Values.Single().End(new WorkerExit(ExitReason.WorkerDied, 1, "killed by signal 9"));
        VmInfo waiting = await UntilAsync(daemon, v => v.NextStart is not null);
        Assert.Equal(VmState.Failed, waiting.State);
        VmInfo later = await UntilAsync(daemon, v => v.Restarts == 2); // the first try failed, too
        Assert.Contains("not now", later.LastExit!.Message, StringComparison.Ordinal);
        VmInfo stopped = await daemon.Client.DoAsync("web1", "stop", s_none);
        Assert.Null(stopped.NextStart);
        daemon.Workers.RefuseLaunch = null;
        Assert.Equal(0, (await daemon.Client.DoAsync("web1", "start", s_none)).Restarts);
    }

    [Fact]
    public async Task The_next_daemon_goes_on_with_a_restart_and_starts_what_starts_by_itself_once_a_boot()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("kept", "restart: always\n");
        await daemon.CreateAsync("self", "autostart: true\n");
        await daemon.Client.DoAsync("kept", "start", s_none);
        await daemon.RestartAsync();
        Assert.Equal(VmState.Defined, (await daemon.Client.ShowAsync("self", s_none)).State); // the same boot
        await daemon.StopDaemonAsync();
        daemon.Workers.Alive.Clear(); // the host lost its power
        File.Delete(Path.Combine(daemon.Options.RunFolder, "autostarted"));
        await daemon.StartDaemonAsync();
        Assert.Equal(VmState.Running, await daemon.StateSoonAsync("self", VmState.Running));
        Assert.Equal(VmState.Running, await daemon.StateSoonAsync("kept", VmState.Running));
    }

    [Fact]
    public async Task A_graceful_stop_asks_the_guest_first_and_pulls_the_plug_when_it_does_not_obey()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker obedient = daemon.Workers.Alive.Values.Single();
        Task<VmInfo> stop = daemon.Client.StopAsync("web1", TimeSpan.FromSeconds(60), s_none);
        while (obedient.PowerButtonPresses == 0)
        {
            await Task.Delay(5);
        }

        obedient.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        VmInfo off = await stop;
        Assert.Equal((VmState.Stopped, ExitReason.PowerOff, null), (off.State, off.LastExit!.Reason, off.NextStart));
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(ExitReason.Stopped, (await daemon.Client.StopAsync("web1", TimeSpan.FromSeconds(1), s_none)).LastExit!.Reason);
    }

    [Fact]
    public async Task Events_are_streamed_and_what_was_missed_is_told_again()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        using CancellationTokenSource stop = new(TimeSpan.FromSeconds(20));
        await daemon.CreateAsync("a");
        await daemon.CreateAsync("b");
        List<string> heard = [];
        await foreach (DaemonEvent what in daemon.Client.EventsAsync(1, stop.Token))
        {
            heard.Add($"{what.Id} {what.Kind} {what.Vm}");
            if (heard.Count == 1)
            {
                await daemon.Client.DeleteAsync("a", s_none);
            }
            else if (heard.Count == 2)
            {
                break;
            }
        }

        Assert.Equal(["2 created b", "3 deleted a"], heard);
        await foreach (DaemonEvent what in daemon.Client.EventsAsync(1_000_000, stop.Token))
        {
            Assert.Equal("gap", what.Kind); // a number that this daemon never gave
            break;
        }
    }

    [Fact]
    public void A_listener_that_does_not_read_is_let_go_and_old_events_are_forgotten()
    {
        EventHub hub = new();
        using EventHub.Listening slow = hub.Listen(null);
        for (int i = 0; i < 2000; i++)
        {
            hub.Publish("changed", "vm" + (i % 5));
        }

        int read = 0;
        while (slow.Events.TryRead(out _))
        {
            read++;
        }

        Assert.InRange(read, 1, 999);
        Assert.True(slow.Events.Completion.IsCompleted);
        Assert.Equal(200, hub.Of("vm0").Count); // its share of what is kept
        using EventHub.Listening late = hub.Listen(5);
        Assert.True(late.Gap);
        Assert.Equal(1000, late.Missed.Count);
    }

    private static async Task<VmInfo> UntilAsync(DaemonFixture daemon, Func<VmInfo, bool> condition)
    {
        for (int i = 0; i < 1000; i++)
        {
            VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
            if (condition(vm))
            {
                return vm;
            }

            await Task.Delay(10);
        }

        throw new InvalidOperationException("it did not happen: " + await daemon.Client.ShowAsync("web1", s_none));
    }
}
