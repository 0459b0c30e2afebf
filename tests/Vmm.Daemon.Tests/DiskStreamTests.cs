using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Tests;

/// <summary>Streams of a running VM's disk: what the daemon asks of the worker, and what it does when something fails or dies.</summary>
public sealed class DiskStreamTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(Path.Combine(_daemon.Folder, "data.img"), new byte[1 << 20]);
        Vmm.Storage.Qcow2.Tools.Qcow2Creator.Create(
            Path.Combine(_daemon.Folder, "root.qcow2"), new Vmm.Storage.Qcow2.Tools.Qcow2CreateOptions { DiskSize = 1 << 20 });
        await _daemon.CreateAsync("web1", "disks:\n  - {path: root.qcow2, format: qcow2}\n  - path: data.img\n");
        await _daemon.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    [Fact]
    public async Task A_disk_is_streamed_and_nothing_else_changes()
    {
        string spec = _daemon.Record().Spec;
        JobInfo job = await BeginAsync(new DiskStreamWish("base.img", 5 << 20));
        Assert.Equal(("disk-stream", "web1/disk0"), (job.Kind, job.Target));
        await DaemonFixture.UntilAsync(() => Worker.Stream is not null);
        Assert.Equal(new DiskStreamWish("base.img", 5 << 20), Worker.Stream);
        Worker.CopyInfo = Worker.CopyInfo with { CopiedBytes = 40 };
        Assert.True((await _daemon.ProgressAsync(job, 0.39)).Progress >= 0.39);
        Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored, CopiedBytes = 100 };
        Assert.Equal(JobState.Done, (await _daemon.EndAsync(job)).State);
        Assert.Equal([DiskCopyStep.Finish], Worker.CopySteps);
        Assert.Equal((spec, null), (_daemon.Record().Spec, _daemon.Record().Copy));
    }

    [Fact]
    public async Task One_that_fails_or_is_cancelled_is_given_up()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.Stream is not null);
        Worker.CopyInfo = Worker.CopyInfo with { Problem = "the file system is full", NoSpace = true };
        JobInfo ended = await _daemon.EndAsync(job);
        Assert.Equal((507, "no-space"), (ended.Error!.Status, ended.Error.Code));
        job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyInfo is { State: DiskCopyState.Copying, Problem: null });
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _daemon.EndAsync(job)).State);
        job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyInfo.State == DiskCopyState.Copying);
        Worker.RefuseStep = step => step == DiskCopyStep.Finish ? new WorkerException(ControlCodes.DiskCopyFailed, "it hangs") : null;
        Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored };
        Assert.Contains("it hangs", (await _daemon.EndAsync(job)).Error!.Detail, StringComparison.Ordinal);
        Assert.Equal([DiskCopyStep.Cancel, DiskCopyStep.Cancel, DiskCopyStep.Finish, DiskCopyStep.Cancel], Worker.CopySteps);
        Assert.Null(_daemon.Record().Copy);
    }

    [Fact]
    public async Task What_must_not_meet_a_stream_is_refused_and_says_so()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.Stream is not null);
        DiskCopyWish copy = new(Path.Combine(_daemon.Folder, "copy.img"));
        JobInfo[] refused =
        [
            await _daemon.EndAsync(await _daemon.Client.SaveAsync("web1", Path.Combine(_daemon.Folder, "saved"), s_none)),
            await _daemon.EndAsync(await _daemon.Client.CopyDiskAsync("web1", "disk1", copy, s_none)),
            await _daemon.EndAsync(await BeginAsync()),
        ];
        Assert.All(refused, other => Assert.Equal((409, "disk-copying"), (other.Error!.Status, other.Error.Code)));
        Assert.All(refused, other => Assert.Contains("disk0 is being streamed", other.Error!.Detail, StringComparison.Ordinal));
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        await _daemon.EndAsync(job);
    }

    [Theory]
    [InlineData("disk1", null, null, "is no image")]
    [InlineData("disk7", null, null, "disk7")]
    [InlineData("disk0", "", null, "expected a path")]
    [InlineData("disk0", null, 0ul, "expected more, or none")]
    public async Task A_stream_that_cannot_be_is_refused(string disk, string? baseFile, ulong? rate, string problem)
    {
        DiskStreamWish wish = new(baseFile, rate);
        JobInfo ended = await _daemon.EndAsync(await _daemon.Client.StreamDiskAsync("web1", disk, wish, s_none));
        Assert.Contains(problem, ended.Error!.Detail, StringComparison.Ordinal);
        Assert.Null(Worker.Stream);
        Assert.Null(_daemon.Record().Copy);
    }

    /// <summary>A later daemon gives up what the worker was at; no file is touched.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_stream_of_an_earlier_daemon_is_given_up(bool alive)
    {
        FakeWorker worker = Worker;
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Copying, "disk0", 10, 100);
        string top = Path.Combine(_daemon.Folder, "root.qcow2");
        await _daemon.StopDaemonAsync();
        _daemon.LeaveRecord(record => record with { Copy = new DiskCopyRecord("disk0", top, top) });

        if (!alive)
        {
            _daemon.Workers.Alive.Clear();
        }

        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _daemon.Record().Copy is null);
        Assert.Equal(alive ? [DiskCopyStep.Cancel] : [], worker.CopySteps);
        Assert.True(File.Exists(top));
    }

    private Task<JobInfo> BeginAsync(DiskStreamWish? wish = null) =>
        _daemon.Client.StreamDiskAsync("web1", "disk0", wish ?? new DiskStreamWish(), s_none);
}
