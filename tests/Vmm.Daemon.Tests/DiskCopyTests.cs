using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Copies of a running VM's disk: which file is the disk when something fails or dies. The files are real, the workers are fakes.
/// </summary>
public sealed class DiskCopyTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(Source, new byte[1 << 20]);
        await _daemon.CreateAsync("web1", "disks:\n  - path: root.img # the system\n    serial: abc\n");
        await _daemon.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private string Source => Path.Combine(_daemon.Folder, "root.img");

    private string Target => Path.Combine(_daemon.Folder, "fast.img");

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    [Fact]
    public async Task A_disk_is_copied_and_the_spec_names_the_copy_before_the_worker_goes_there()
    {
        JobInfo job = await BeginAsync(new DiskCopyWish(Target, "buffered", 5 << 20));
        Assert.Equal(("disk-copy", "web1/disk0"), (job.Kind, job.Target));
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Assert.Equal((Target, 5ul << 20), (Worker.CopyTo!.Path, Worker.CopyWish!.BytesPerSecond));
        Assert.Equal(1 << 20, new FileInfo(Target).Length);
        Worker.CopyInfo = Worker.CopyInfo with { CopiedBytes = 40 };
        Assert.True((await _daemon.ProgressAsync(job, 0.39)).Progress >= 0.39);

        string specAtFinish = "";
        Worker.RefuseStep = step =>
        {
            specAtFinish = step == DiskCopyStep.Finish ? _daemon.Record().Spec : specAtFinish;
            return null;
        };
        Mirrored();
        Assert.Equal(JobState.Done, (await _daemon.EndAsync(job)).State);
        Assert.Contains(Target, specAtFinish, StringComparison.Ordinal);
        Assert.Contains("abc", specAtFinish, StringComparison.Ordinal);
        Assert.Equal([DiskCopyStep.Seal, DiskCopyStep.Finish], Worker.CopySteps);
        Assert.True(File.Exists(Source) && File.Exists(Target));
        Assert.True((await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Single() is { Stored: true } disk && disk.Source == Target);
        Assert.Contains((await _daemon.Client.EventsOfAsync("web1", s_none)).Events, e => e.Kind is "disk-copied");
    }

    [Fact]
    public async Task A_cancelled_copy_removes_its_file_and_leaves_the_disk()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _daemon.EndAsync(job)).State);
        await UnchangedAsync();
        Assert.Equal([DiskCopyStep.Cancel], Worker.CopySteps);
    }

    [Theory]
    [InlineData(true, 507, "no-space")]
    [InlineData(false, 502, "disk-copy-failed")]
    public async Task A_target_that_fails_fails_the_job_only(bool noSpace, int status, string code)
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Worker.CopyInfo = Worker.CopyInfo with { Problem = "the target is broken", NoSpace = noSpace };
        JobInfo ended = await _daemon.EndAsync(job);
        Assert.Equal((JobState.Failed, status, code), (ended.State, ended.Error!.Status, ended.Error.Code));
        Assert.Contains("the target is broken; the VM goes on with " + Source, ended.Error.Detail, StringComparison.Ordinal);
        await UnchangedAsync();
    }

    /// <summary>The worst moment: the spec names the target, and it fails before the worker is there.</summary>
    [Fact]
    public async Task A_target_that_fails_in_the_last_moment_gives_the_spec_its_file_back()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Worker.RefuseStep = step =>
        {
            if (step != DiskCopyStep.Finish)
            {
                return null;
            }

            Worker.CopyInfo = Worker.CopyInfo with { Problem = "the target is broken" };
            return new WorkerException(ControlCodes.DiskCopyFailed, "the target is broken");
        };
        Mirrored();
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        await UnchangedAsync();
        Assert.Equal([DiskCopyStep.Seal, DiskCopyStep.Finish, DiskCopyStep.Cancel], Worker.CopySteps);
    }

    /// <summary>A worker that dies behind the write of the spec has everything in the target.</summary>
    [Fact]
    public async Task A_worker_that_dies_before_it_goes_over_leaves_the_target_as_the_disk()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        FakeWorker worker = Worker;
        worker.RefuseStep = step =>
        {
            if (step != DiskCopyStep.Finish)
            {
                return null;
            }

            worker.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
            return new WorkerException("worker-died", "it is gone");
        };
        Mirrored();
        await _daemon.EndAsync(job);
        Assert.Contains(Target, await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        Assert.True(File.Exists(Target));
    }

    [Fact]
    public async Task The_plug_can_be_pulled_and_the_copy_is_over_then()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Assert.Equal(VmState.Stopped, (await _daemon.Client.DoAsync("web1", "stop", s_none)).State);
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        await UnchangedAsync();
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task What_must_not_meet_a_copy_is_refused_and_says_so()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        JobInfo[] refused =
        [
            await _daemon.EndAsync(await _daemon.Client.SaveAsync("web1", Path.Combine(_daemon.Folder, "saved"), s_none)),
            await _daemon.EndAsync(await _daemon.Client.CopyDiskAsync("web1", "disk0", new DiskCopyWish(Target + "2"), s_none)),
        ];
        Assert.All(refused, other => Assert.Equal((409, "disk-copying"), (other.Error!.Status, other.Error.Code)));
        Problem[] problems =
        [
            await DaemonFixture.RefusedAsync(() => _daemon.Client.ResizeDiskAsync("web1", "disk0", 2 << 20, s_none)),
            await DaemonFixture.RefusedAsync(
                () => _daemon.Client.DetachAsync("web1", "disk0", TimeSpan.Zero, force: true, forGood: true, s_none)),
        ];
        Assert.All(problems, problem => Assert.Equal((409, "disk-copying"), (problem.Status, problem.Code)));
        await _daemon.Client.DoAsync("web1", "pause", s_none); // this goes on beside it
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        await _daemon.EndAsync(job);
    }

    [Theory]
    [InlineData("disk0", "relative.img", null, "expected a whole path")]
    [InlineData("disk0", "/etc/a.img", null, "in no storage folder")]
    [InlineData("disk0", "{folder}/.hidden", null, "is no name")]
    [InlineData("disk0", "{folder}/root.img", null, "is there already")]
    [InlineData("disk0", "{folder}/missing/a.img", null, "does not exist")]
    [InlineData("disk0", "{folder}/a.img", "none", "expected direct or buffered")]
    [InlineData("disk7", "{folder}/a.img", null, "disk7")]
    public async Task A_copy_that_cannot_be_is_refused_and_makes_nothing(string disk, string to, string? cache, string problem)
    {
        string path = to.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal);
        JobInfo ended = await _daemon.EndAsync(await _daemon.Client.CopyDiskAsync("web1", disk, new DiskCopyWish(path, cache), s_none));
        Assert.Contains(problem, ended.Error!.Detail, StringComparison.Ordinal);
        Assert.Null(Worker.CopyTo);
        Assert.False(File.Exists(Path.Combine(_daemon.Folder, "a.img")));
        Assert.Equal(1 << 20, new FileInfo(Source).Length);
    }

    /// <summary>A later daemon finds a copy that was not finished: it ends it in the worker, and removes its file.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_copy_of_an_earlier_daemon_that_the_spec_does_not_know_is_undone(bool alive)
    {
        FakeWorker worker = Worker;
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Copying, "disk0", 10, 100);
        await CutOffAsync(spec => spec);
        if (!alive)
        {
            _daemon.Workers.Alive.Clear();
        }

        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => !File.Exists(Target));
        Assert.Equal(alive ? [DiskCopyStep.Cancel] : [], worker.CopySteps);
        Assert.Contains("path: root.img", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
    }

    /// <summary>It finds one whose target the spec names: the worker goes over, or is gone and has left everything there.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_copy_of_an_earlier_daemon_that_the_spec_knows_is_finished(bool alive)
    {
        FakeWorker worker = Worker;
        await worker.CopyDiskAsync("disk0", new Spec.DiskSpec { Path = Target }, new DiskCopyWish(Target), s_none);
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Sealed, "disk0", 100, 100);
        await CutOffAsync(spec => spec.Replace("root.img", Target, StringComparison.Ordinal));
        if (!alive)
        {
            _daemon.Workers.Alive.Clear();
        }

        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _daemon.Record().Copy is null);
        Assert.Equal(alive ? [DiskCopyStep.Finish] : [], worker.CopySteps);
        Assert.True(File.Exists(Target));
    }

    private void Mirrored() => Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored, CopiedBytes = 100 };

    private Task<JobInfo> BeginAsync(DiskCopyWish? wish = null) =>
        _daemon.Client.CopyDiskAsync("web1", "disk0", wish ?? new DiskCopyWish(Target), s_none);

    private async Task UnchangedAsync()
    {
        Assert.False(File.Exists(Target));
        Assert.Contains("root.img", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        Assert.Null(_daemon.Record().Copy);
    }

    /// <summary>As if the daemon had died in a copy, with the spec as it was at that moment.</summary>
    private async Task CutOffAsync(Func<string, string> edit)
    {
        await File.WriteAllBytesAsync(Target, new byte[1 << 20]);
        await _daemon.StopDaemonAsync();
        _daemon.LeaveRecord(record => record with { Spec = edit(record.Spec), Copy = new DiskCopyRecord("disk0", Source, Target) });
    }
}
