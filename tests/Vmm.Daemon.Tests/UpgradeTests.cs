using System.Net.WebSockets;
using System.Text;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Memory;

namespace Vmm.Daemon.Tests;

/// <summary>vm upgrade, with workers that only pretend; bytes really go from one to the other.</summary>
public sealed class UpgradeTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;
    private FakeWorker _first = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await _daemon.CreateAsync("web1");
        await _daemon.Client.DoAsync("web1", "start", s_none);
        _first = _daemon.Workers.Alive.Values.Single();
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private Task<VmInfo> Vm => _daemon.Client.ShowAsync("web1", s_none);

    private string Id => _daemon.Workers.Alive.Values.First().VmId;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_vm_goes_on_in_another_worker_as_it_was_and_the_one_before_ends(bool paused)
    {
        if (paused)
        {
            await _daemon.Client.DoAsync("web1", "pause", s_none);
        }

        JobInfo job = await UpgradeAsync();
        Assert.Equal((JobState.Done, "handed-over", 1.5), (job.State, job.Move?.Stage, job.Move?.DowntimeMilliseconds));
        FakeWorker now = Only();
        Assert.NotSame(_first, now);
        VmInfo vm = await Vm;
        Assert.Equal(
            (paused ? VmState.Paused : VmState.Running, now.ProcessId, null), (vm.State, vm.WorkerProcessId!.Value, vm.LastExit));
        Assert.Equal((true, true, null), (_first.Ended.IsCompleted, _first.HasLetGo, now.MoveId));
        Assert.Equal(paused ? VmState.Paused : VmState.Running, now.State);
        Assert.Null(_daemon.Record().Move);
        Assert.True(_daemon.Record().WantedOn);

        // And once more, and its end is the VM's.
        Assert.Equal(JobState.Done, (await UpgradeAsync()).State);
        Only().End(new WorkerExit(ExitReason.PowerOff, 0, null));
        Assert.Equal(VmState.Stopped, await _daemon.StateSoonAsync("web1", VmState.Stopped));
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Theory]
    [InlineData("receive", false)]
    [InlineData("begin", false)]
    [InlineData("status", false)]
    [InlineData("stop", false)]
    [InlineData("complete", false)]
    [InlineData("receive", true)]
    [InlineData("stop", true)]
    [InlineData("complete", true)]
    public async Task Whatever_fails_before_the_commit_point_leaves_the_vm_in_its_worker(string step, bool paused)
    {
        if (paused)
        {
            await _daemon.Client.DoAsync("web1", "pause", s_none);
        }

        At(step, _ => throw new WorkerException("move-failed", "no luck at " + step));
        JobInfo job = await UpgradeAsync();
        Assert.Equal(JobState.Failed, job.State);
        Assert.Contains("no luck at " + step, job.Error!.Detail, StringComparison.Ordinal);
        await ItIsAsBeforeAsync(paused);

        At("", _ => Task.CompletedTask);
        Assert.Equal(JobState.Done, (await UpgradeAsync()).State);
    }

    [Theory]
    [InlineData("receive")]
    [InlineData("begin")]
    [InlineData("status")]
    [InlineData("stop")]
    [InlineData("complete")]
    public async Task A_step_that_hangs_is_given_up_by_whoever_cancels(string step)
    {
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        At(step, async cancellation =>
        {
            reached.TrySetResult();
            await Task.Delay(Timeout.Infinite, cancellation);
        });
        JobInfo job = await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none);
        await reached.Task.WaitAsync(TimeSpan.FromSeconds(20));
        Assert.Equal(VmState.Migrating, (await Vm).State);
        foreach (string verb in (string[])["pause", "resume", "power-button"])
        {
            VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.DoAsync("web1", verb, s_none));
            Assert.Contains("is being moved", refused.Problem.Detail, StringComparison.Ordinal);
        }

        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _daemon.EndAsync(job)).State);
        await ItIsAsBeforeAsync(paused: false);
    }

    [Theory]
    [InlineData("begin")]
    [InlineData("status")]
    [InlineData("stop")]
    [InlineData("complete")]
    public async Task A_worker_that_dies_in_a_step_ends_the_vm_and_leaves_no_other(string step)
    {
        At(step, _ =>
        {
            _first.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
            return Task.CompletedTask;
        });
        JobInfo job = await UpgradeAsync();
        if (step == "complete" && job.State == JobState.Done)
        {
            // Everything was handed over by then: when nobody has noticed that it died, the VM goes on in the other, and only there.
            Assert.Equal(VmState.Running, (await Vm).State);
            Assert.NotSame(_first, Only());
            return;
        }

        Assert.Equal(JobState.Failed, job.State);
        Assert.Equal(VmState.Failed, (await Vm).State);
        Assert.Empty(_daemon.Workers.Alive);
        Assert.Null(_daemon.Record().Move);
        At("", _ => Task.CompletedTask);
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task A_plug_that_is_pulled_meanwhile_is_pulled()
    {
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously), gate = new();
        At("complete", async _ =>
        {
            reached.TrySetResult();
            await gate.Task;
        });
        JobInfo job = await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none);
        await reached.Task.WaitAsync(TimeSpan.FromSeconds(20));
        Task<VmInfo> stop = _daemon.Client.DoAsync("web1", "stop", s_none);
        await _first.Ended.WaitAsync(TimeSpan.FromSeconds(20));
        gate.SetResult();
        Assert.Equal(VmState.Stopped, (await stop).State);
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        Assert.Empty(_daemon.Workers.Alive);
    }

    [Fact]
    public async Task One_that_does_not_converge_in_time_runs_on_and_says_why()
    {
        _first.Moving.NeverConverges = true;
        JobInfo job = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(20, 1), s_none));
        Assert.Equal("move-timeout", job.Error!.Code);
        Assert.Contains("32 MiB are left", job.Error.Detail, StringComparison.Ordinal);
        Assert.Equal(20, _first.Moving.Wish!.DowntimeMilliseconds);
        await ItIsAsBeforeAsync(paused: false);

        JobInfo forced = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(20, 1, Force: true), s_none));
        Assert.Equal(JobState.Done, forced.State);
        Assert.NotSame(_first, Only());
    }

    [Fact]
    public async Task A_start_that_fails_behind_the_commit_point_ends_the_vm_and_does_not_go_back()
    {
        _daemon.Workers.Starting = _ => throw new WorkerException("start-failed", "no vCPU");
        JobInfo job = await UpgradeAsync();
        Assert.Contains("no vCPU", job.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Stopped, (await Vm).State);
        Assert.True(_first.Ended.IsCompleted);
        Assert.Empty(_daemon.Workers.Alive);
        Assert.Null(_daemon.Record().Move);
    }

    [Fact]
    public async Task Limits_in_force_and_plugged_devices_come_along()
    {
        await _daemon.Client.LimitCpuAsync("web1", new CpuLimits(50, 200), s_none);
        string disk = Path.Combine(_daemon.Folder, "more.img");
        await File.WriteAllTextAsync(disk, "x");
        await _daemon.Client.AttachAsync("web1", "disks", "path: " + disk, stay: false, s_none);
        Assert.Equal(JobState.Done, (await UpgradeAsync()).State);
        Assert.Equal(new CpuLimits(50, 200), Only().CpuLimits);
        Assert.Equal([disk], (await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(device => device.Source));
        Assert.Equal([disk], _daemon.Workers.Received.Single().Spec.Disks.Select(d => d.Path));
        Assert.Equal(JobState.Done, (await UpgradeAsync()).State); // still known
    }

    [Fact]
    public async Task A_console_goes_on_in_the_new_worker()
    {
        using WebSocket console = await _daemon.Client.ConsoleAsync("web1", s_none);
        Assert.Equal("ONE", await EchoAsync(console, "one"));
        Assert.Equal(JobState.Done, (await UpgradeAsync()).State);
        Assert.Equal("TWO", await EchoAsync(console, "two"));
    }

    [Fact]
    public async Task There_is_memory_for_two_or_it_is_refused()
    {
        await using DaemonFixture small = await DaemonFixture.StartAsync(
            _ => new DaemonOptions { Overcommit = 1, HostMemory = () => ByteSize.MiB(96) });
        await small.CreateAsync("web1", "memory: 64MiB\n");
        await small.Client.DoAsync("web1", "start", s_none);
        JobInfo job = await small.EndAsync(await small.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none));
        Assert.Equal("memory-promised", job.Error!.Code);
        Assert.Contains("a second time", job.Error.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, (await small.Client.ShowAsync("web1", s_none)).State);

        // A worker that passes its memory needs none besides.
        FakeWorker worker = small.Workers.Alive.Values.Single();
        worker.Moving.CanPassMemory = true;
        job = await small.EndAsync(await small.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none));
        Assert.Equal(JobState.Done, job.State);
        Assert.True(worker.Moving.Wish!.PassMemory);
    }

    [Fact]
    public async Task A_vm_with_a_vsock_goes_on_too_and_no_name_of_a_second_worker_stays()
    {
        string path = Path.Combine(_daemon.Folder, "v.sock");
        await _daemon.CreateAsync("web2", $"vsock: {{cid: 7, path: {path}}}\n");
        await _daemon.Client.DoAsync("web2", "start", s_none);
        using (UnixListener left = new(path + ".next"))
        {
            left.Leave(); // of a move that vmmd did not survive
            Assert.True(File.Exists(path + ".next"));
            FakeWorker worker = _daemon.Workers.Alive.Values.Single(each => each.VmId != _first.VmId);
            worker.Moving.Before = (call, _) => call == "stop" ? throw new WorkerException("move-failed", "no") : Task.CompletedTask;
            JobInfo failed = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web2", new UpgradeRequest(), s_none));
            Assert.Equal("move-failed", failed.Error!.Code);
            Assert.False(File.Exists(path + ".next"));
            worker.Moving.Before = (_, _) => Task.CompletedTask;
        }

        JobInfo job = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web2", new UpgradeRequest(), s_none));
        Assert.Equal(JobState.Done, job.State);
    }

    [Theory]
    [InlineData("{\"maxDowntimeMilliseconds\":0}", "maxDowntimeMilliseconds")]
    [InlineData("{\"timeoutSeconds\":86401}", "timeoutSeconds")]
    public async Task Numbers_that_cannot_be_are_named(string body, string field)
    {
        UpgradeRequest request = System.Text.Json.JsonSerializer.Deserialize(body, RestJson.Default.UpgradeRequest)!;
        Problem refused = await DaemonFixture.RefusedAsync(() => _daemon.Client.UpgradeAsync("web1", request, s_none));
        Assert.Equal((422, field), (refused.Status, refused.Errors!.Single().Field));
    }

    private void At(string step, Func<CancellationToken, Task> what)
    {
        Task Happen(string now, CancellationToken cancellation) => now == step ? what(cancellation) : Task.CompletedTask;
        _first.Moving.Before = Happen;
        _daemon.Workers.Incoming = (now, cancellation) => now == "status" ? Task.CompletedTask : Happen(now, cancellation);
    }

    private async Task ItIsAsBeforeAsync(bool paused)
    {
        VmState state = paused ? VmState.Paused : VmState.Running;
        VmInfo vm = await Vm;
        Assert.Equal((state, _first.ProcessId, state), (vm.State, vm.WorkerProcessId!.Value, _first.State));
        Assert.Equal("cancel", _first.Moving.Calls[^1]);
        Assert.Same(_first, Only());
        Assert.All(_daemon.Workers.Received, incoming => Assert.True(incoming.IsDisposed || incoming.Receiving.IsCompleted));
        Assert.Null(_daemon.Record().Move);
        Assert.True(_daemon.Record().WantedOn);
    }

    private FakeWorker Only() => Assert.Single(_daemon.Workers.Alive).Value;

    private async Task<JobInfo> UpgradeAsync() =>
        await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none));

    private static async Task<string> EchoAsync(WebSocket console, string text)
    {
        await console.SendAsync(Encoding.ASCII.GetBytes(text), WebSocketMessageType.Binary, endOfMessage: true, s_none);
        byte[] buffer = new byte[64];
        WebSocketReceiveResult got = await console.ReceiveAsync(buffer, s_none);
        return Encoding.ASCII.GetString(buffer, 0, got.Count);
    }
}
