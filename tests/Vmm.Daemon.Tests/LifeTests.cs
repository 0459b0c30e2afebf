using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>What keeps VMs alive, startable and stoppable when workers, hosts and daemons do not do as they should.</summary>
public sealed class LifeTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(typeof(WorkerException))]
    [InlineData(typeof(IOException))]
    [InlineData(typeof(InvalidOperationException))]
    [InlineData(typeof(NullReferenceException))]
    public async Task Whatever_a_restart_meets_there_is_a_next_one_and_a_later_daemon_goes_on_with_it(Type fault)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.RefuseLaunch = fault == typeof(WorkerException)
            ? new WorkerException("disk-in-use", "not now")
            : (Exception)Activator.CreateInstance(fault, "not now")!;
        daemon.Workers.Alive.Values.Single().End(new WorkerExit(ExitReason.PowerOff, 0, null));
        VmInfo waiting = await UntilAsync(daemon, "web1", vm => vm is { Restarts: >= 2, NextStart: not null });
        Assert.Contains("not now", waiting.LastExit!.Message, StringComparison.Ordinal);
        await daemon.StopDaemonAsync();
        daemon.Workers.RefuseLaunch = null;
        await daemon.StartDaemonAsync();
        Assert.NotNull((await UntilAsync(daemon, "web1", vm => vm.State == VmState.Running)).WorkerProcessId);
    }

    [Fact]
    public async Task A_vm_that_was_lost_is_wanted_on_until_its_restart_whatever_daemon_comes_in_between()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await daemon.StopDaemonAsync();
        daemon.Workers.Alive.Clear(); // its worker died with nobody watching
        for (int i = 0; i < 2; i++)
        {
            await daemon.StartDaemonAsync(); // finds it lost, plans a restart in a second …
            Assert.NotNull((await daemon.Client.ShowAsync("web1", s_none)).NextStart);
            await daemon.StopDaemonAsync(); // … and goes before that
        }

        await daemon.StartDaemonAsync();
        await UntilAsync(daemon, "web1", vm => vm.State == VmState.Running);
    }

    [Fact]
    public async Task One_vm_that_cannot_be_started_by_itself_ends_neither_the_daemon_nor_the_others()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("broken", "autostart: true\nrestart: on-failure\n");
        await daemon.StopDaemonAsync();
        string mark = Path.Combine(daemon.Options.RunFolder, "autostarted");
        File.Delete(mark);
        daemon.Workers.RefuseLaunch = new IOException("No space left on device : '/run/vmm/workers/x.end'");
        await daemon.StartDaemonAsync();
        await UntilAsync(daemon, "broken", vm => vm is { State: VmState.Failed, NextStart: not null });
        for (int i = 0; i < 500 && !File.Exists(mark); i++)
        {
            await Task.Delay(10);
        }

        Assert.True(File.Exists(mark));
        daemon.Workers.RefuseLaunch = null;
        await UntilAsync(daemon, "broken", vm => vm.State == VmState.Running);
    }

    [Fact]
    public async Task A_start_by_itself_that_takes_its_time_does_not_delay_the_daemon()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("large", "autostart: true\n");
        await daemon.StopDaemonAsync();
        File.Delete(Path.Combine(daemon.Options.RunFolder, "autostarted"));
        daemon.Workers.LaunchGate = new TaskCompletionSource();
        await daemon.StartDaemonAsync();
        await UntilAsync(daemon, "large", vm => vm.State == VmState.Starting);
        daemon.Workers.LaunchGate.SetResult();
        await UntilAsync(daemon, "large", vm => vm.State == VmState.Running);
    }

    [Fact]
    public async Task A_worker_that_hangs_keeps_the_daemon_from_nothing_and_its_vm_can_be_started_again()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("hung");
        await daemon.CreateAsync("well");
        await daemon.Client.DoAsync("hung", "start", s_none);
        await daemon.Client.DoAsync("well", "start", s_none);
        await daemon.Client.DoAsync("well", "pause", s_none);
        FakeWorker hung = daemon.Workers.Alive[(await daemon.Client.ShowAsync("hung", s_none)).Id];
        hung.Silent = new TaskCompletionSource<bool>();
        await daemon.RestartAsync(); // would not return if it waited for that worker
        Assert.Equal(VmState.Paused, (await daemon.Client.ShowAsync("well", s_none)).State);
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("hung", s_none)).State);
        hung.Silent.SetResult(false); // what the launcher says when it ends it
        hung.End(new WorkerExit(ExitReason.WorkerDied, 1, "it did not speak"));
        await UntilAsync(daemon, "hung", vm => vm.State == VmState.Failed);
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("hung", "start", s_none)).State);
    }

    [Fact]
    public async Task A_worker_that_answers_late_is_taken_over_as_it_is_and_its_plug_can_be_pulled_before()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        foreach (string name in (string[])["late", "pulled"])
        {
            await daemon.CreateAsync(name);
            await daemon.Client.DoAsync(name, "start", s_none);
            await daemon.Client.DoAsync(name, "pause", s_none);
            daemon.Workers.Alive[(await daemon.Client.ShowAsync(name, s_none)).Id].Silent = new TaskCompletionSource<bool>();
        }

        TaskCompletionSource<bool> late = daemon.Workers.Alive[(await daemon.Client.ShowAsync("late", s_none)).Id].Silent!;
        await daemon.RestartAsync();
        Assert.Equal(VmState.Stopped, (await daemon.Client.DoAsync("pulled", "stop", s_none)).State);
        late.SetResult(true);
        await UntilAsync(daemon, "late", vm => vm.State == VmState.Paused);
    }

    [Fact]
    public async Task While_a_guest_takes_its_time_to_power_off_other_commands_are_carried_out_and_the_plug_can_be_pulled()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        Task<VmInfo> graceful = daemon.Client.StopAsync("web1", TimeSpan.FromSeconds(600), s_none);
        while (worker.PowerButtonPresses == 0)
        {
            await Task.Delay(5);
        }

        Assert.Equal(VmState.Paused, (await daemon.Client.DoAsync("web1", "pause", s_none).WaitAsync(s_long)).State);
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "resume", s_none).WaitAsync(s_long)).State);
        Assert.False(graceful.IsCompleted);
        Assert.Equal(VmState.Stopped, (await daemon.Client.DoAsync("web1", "stop", s_none).WaitAsync(s_long)).State);
        VmInfo off = await graceful.WaitAsync(s_long);
        Assert.Equal((VmState.Stopped, null), (off.State, off.NextStart));
    }

    [Fact]
    public async Task A_graceful_stop_that_is_over_leaves_the_next_run_alone_and_one_that_is_given_up_counts_no_more()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker first = daemon.Workers.Alive.Values.Single();
        JobInfo job = await daemon.Client.BeginStopAsync("web1", TimeSpan.FromSeconds(600), s_none);
        while (first.PowerButtonPresses == 0)
        {
            await Task.Delay(5);
        }

        await daemon.Client.CancelJobAsync(job.Id, s_none);
        first.End(new WorkerExit(ExitReason.PowerOff, 0, null)); // of its own will again: the policy counts
        await UntilAsync(daemon, "web1", vm => vm is { State: VmState.Running, Restarts: 1 });
        Task<VmInfo> graceful = daemon.Client.StopAsync("web1", TimeSpan.FromSeconds(1), s_none);
        FakeWorker second = daemon.Workers.Alive.Values.Single();
        while (second.PowerButtonPresses == 0)
        {
            await Task.Delay(5);
        }

        await daemon.Client.DoAsync("web1", "stop", s_none);
        await daemon.Client.DoAsync("web1", "start", s_none);
        await graceful;
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_command_that_hangs_in_its_worker_does_not_keep_the_plug_from_being_pulled()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.Alive.Values.Single().Hangs = true;
        Task<VmInfo> pause = daemon.Client.DoAsync("web1", "pause", s_none);
        await Task.Delay(100);
        Assert.Equal(VmState.Stopped, (await daemon.Client.DoAsync("web1", "stop", s_none).WaitAsync(TimeSpan.FromSeconds(30))).State);
        Assert.Equal("worker-died", (await DaemonFixture.RefusedAsync(() => pause.WaitAsync(TimeSpan.FromSeconds(30)))).Code);
    }

    [Fact]
    public async Task A_start_that_takes_long_tells_how_far_it_is_and_a_stop_or_a_cancel_ends_it()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "restart: always\n");
        daemon.Workers.LaunchGate = new TaskCompletionSource();
        daemon.Workers.LaunchProgress = 0.4;
        JobInfo job = (await daemon.Client.StartAsync("web1", TimeSpan.Zero, s_none)).Job!;
        for (int i = 0; i < 500 && (await daemon.Client.JobAsync(job.Id, s_none)).Progress < 0.4; i++)
        {
            await Task.Delay(10);
        }

        Assert.Equal(0.4, (await daemon.Client.JobAsync(job.Id, s_none)).Progress);
        Assert.Equal(JobState.Cancelled, (await daemon.Client.CancelJobAsync(job.Id, s_none)).State);
        VmInfo given = await UntilAsync(daemon, "web1", vm => vm.State == VmState.Stopped);
        Assert.Equal((ExitReason.Stopped, null), (given.LastExit!.Reason, given.NextStart));

        Task<VmInfo> start = daemon.Client.DoAsync("web1", "start", s_none);
        await UntilAsync(daemon, "web1", vm => vm.State == VmState.Starting);
        Assert.Equal(VmState.Stopped, (await daemon.Client.DoAsync("web1", "stop", s_none).WaitAsync(TimeSpan.FromSeconds(30))).State);
        Assert.Equal("start-stopped", (await DaemonFixture.RefusedAsync(() => start)).Code);
        daemon.Workers.LaunchGate = null;
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task A_lost_connection_is_told_and_the_vm_goes_on()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.Alive.Values.Single().Connection(there: false);
        daemon.Workers.Alive.Values.Single().Connection(there: true);
        Assert.Equal(
            ["worker-lost", "worker-back"], (await daemon.Client.EventsOfAsync("web1", s_none)).Events.Select(e => e.Kind).TakeLast(2));
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_temporary_disk_that_was_detached_is_in_use_no_more()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await daemon.Client.DoAsync("web1", "start", s_none);
        JobInfo made = await daemon.Client.CreateDiskAsync(new DiskRequest("scratch", 1 << 20), s_none);
        for (int i = 0; i < 500 && (await daemon.Client.JobAsync(made.Id, s_none)).State == JobState.Running; i++)
        {
            await Task.Delay(10);
        }

        DiskInfo disk = await daemon.Client.DiskAsync("scratch", s_none);
        DeviceInfo added = await daemon.Client.AttachAsync("web1", "disks", $"path: {disk.Path}\n", stay: false, s_none);
        Assert.Equal("disk-in-use", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteDiskAsync("scratch", s_none))).Code);
        await daemon.Client.DetachAsync("web1", added.Name, TimeSpan.FromSeconds(1), force: false, forGood: false, s_none);
        await daemon.Client.DeleteDiskAsync("scratch", s_none);
    }

    [Fact]
    public async Task Commands_that_wait_for_a_vm_that_is_deleted_are_told_so_and_leave_no_trace()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        Vms.ManagedVm vm = daemon.Host.Vms.Get("web1");
        await daemon.Client.DeleteAsync("web1", s_none);
        Task[] late =
        [
            vm.StartAsync(null, s_none), vm.StopAsync(null, s_none), vm.StopAsync(TimeSpan.FromSeconds(1), s_none),
            vm.Controls.PauseAsync(s_none), vm.RemoveAsync(null, () => null, s_none),
            vm.CpuTime.LimitAsync(new CpuLimits(50), null, s_none), vm.ReplaceAsync("name: web1", "/", new VmSpec(), null, s_none),
        ];
        foreach (Task command in late)
        {
            Assert.Equal("vm-not-found", (await Assert.ThrowsAsync<Vms.ApiException>(() => command)).Problem.Code);
        }

        Assert.Empty(daemon.Workers.Alive);
        Assert.Equal("deleted", daemon.Host.Vms.Events.Of("web1")[^1].Kind);
    }

    [Fact]
    public async Task A_start_that_is_quick_is_answered_with_the_vm_and_makes_no_job()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        (VmInfo? vm, JobInfo? job) = await daemon.Client.StartAsync("web1", TimeSpan.FromSeconds(60), s_none);
        Assert.Equal((VmState.Running, null), (vm!.State, job));
        Assert.Empty((await daemon.Client.JobsAsync(s_none)).Jobs);
    }

    [Fact]
    public void A_start_may_take_longer_the_more_huge_pages_it_takes_and_the_kernel_tells_how_many_are_there()
    {
        VmSpec small = new() { Memory = ByteSize.GiB(400) };
        Assert.Equal(TimeSpan.Zero, BuildProgress.Longest(small)); // taken when it is touched
        VmSpec large =
            new() { Numa = new NumaSpec { Vnodes = [new VnodeSpec { Memory = ByteSize.GiB(400), PageSize = ByteSize.GiB(1) }] } };
        Assert.InRange(BuildProgress.Longest(large), TimeSpan.FromMinutes(20), TimeSpan.FromMinutes(60));
        Assert.Equal(5.0 * (1 << 20), BuildProgress.HugePageBytes("Name:\tvmm-worker\nHugetlbPages:\t    5120 kB\nCpus_allowed:\t3\n"));
        Assert.Equal(0, BuildProgress.HugePageBytes("Name:\tx\n"));
        Assert.Equal(0, BuildProgress.HugePageBytes(File.ReadAllText("/proc/self/status"))); // the line as this kernel writes it, or none
    }

    [Fact]
    public async Task A_disk_is_in_its_folder_for_good_when_its_job_is_done()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string folder = Path.Combine(daemon.Folder, "disks");
        List<bool> flushed = [];
        DiskFolder disks = new(folder, daemon.Host.Vms, path =>
        {
            flushed.Add(File.Exists(Path.Combine(path, "data")));
            HostFolder.Flush(path);
        });
        await disks.Prepare(new DiskRequest("data", 1 << 20))(_ => { }, s_none);
        Assert.Equal([true], flushed); // behind the rename
        disks.Remove("data");
        Assert.Equal([true, false], flushed);
        Assert.Contains(
            "errno 2", Assert.Throws<IOException>(() => HostFolder.Flush(Path.Combine(folder, "none"))).Message, StringComparison.Ordinal);
    }

    private static async Task<VmInfo> UntilAsync(DaemonFixture daemon, string name, Func<VmInfo, bool> condition)
    {
        for (int i = 0; i < 3000; i++)
        {
            VmInfo vm = await daemon.Client.ShowAsync(name, s_none);
            if (condition(vm))
            {
                return vm;
            }

            await Task.Delay(10);
        }

        throw new InvalidOperationException("it did not happen: " + await daemon.Client.ShowAsync(name, s_none));
    }
}
