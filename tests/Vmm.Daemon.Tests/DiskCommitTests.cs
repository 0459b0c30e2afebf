using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Commits of a running VM's disk: which file is the disk when something fails or dies. The files are real, the workers are fakes.
/// </summary>
public sealed class DiskCommitTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(In("root.img"), new byte[1 << 20]);
        Over("middle.qcow2", "root.img", ImageFormat.Raw);
        Over("top.qcow2", "middle.qcow2", ImageFormat.Qcow2);
        await File.WriteAllBytesAsync(In("data.img"), new byte[1 << 20]);
        await _daemon.CreateAsync("web1",
            "disks:\n  - path: top.qcow2 # the system\n    format: qcow2\n    serial: abc\n  - path: data.img\n");
        await _daemon.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    [Theory]
    [InlineData(null, "middle.qcow2", "qcow2")]
    [InlineData("middle.qcow2", "middle.qcow2", "qcow2")]
    [InlineData("root.img", "root.img", "raw")]
    [InlineData("{folder}/root.img", "root.img", "raw")]
    public async Task A_disk_is_committed_and_the_spec_names_the_base_before_the_worker_goes_there(string? into, string file, string format)
    {
        JobInfo job = await BeginAsync(new DiskCommitWish(
            into?.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal), BytesPerSecond: 5 << 20));
        Assert.Equal(("disk-commit", "web1/disk0"), (job.Kind, job.Target));
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Assert.Equal((In(file), 5ul << 20), (Worker.CopyTo!.Path, Worker.CopyWish!.BytesPerSecond));
        Worker.CopyInfo = Worker.CopyInfo with { CopiedBytes = 40 };
        Assert.True((await _daemon.ProgressAsync(job, 0.39)).Progress >= 0.39);
        VmRecord meanwhile = Record();
        Assert.Equal(new DiskCommitRecord("disk0", In("top.qcow2"), In(file), format == "qcow2"), meanwhile.Commit);
        Assert.Contains("top.qcow2", meanwhile.Spec, StringComparison.Ordinal);
        string specAtFinish = "";
        Worker.RefuseStep = step =>
        {
            specAtFinish = step == DiskCopyStep.Finish ? Record().Spec : specAtFinish;
            return null;
        };
        Mirrored();
        Assert.Equal(JobState.Done, (await _daemon.EndAsync(job)).State);
        Assert.Contains(In(file), specAtFinish, StringComparison.Ordinal);
        Assert.Contains("abc", specAtFinish, StringComparison.Ordinal);
        Assert.Equal(format == "qcow2", specAtFinish.Contains("format: qcow2", StringComparison.Ordinal));
        Assert.Equal([DiskCopyStep.Seal, DiskCopyStep.Finish], Worker.CopySteps);
        Assert.Null(Record().Commit);
        Assert.All(new[] { "top.qcow2", "middle.qcow2", "root.img" }, each => Assert.True(File.Exists(In(each))));
        DeviceList devices = await _daemon.Client.DevicesAsync("web1", s_none);
        Assert.Contains(devices.Devices, disk => disk is { Stored: true } && disk.Source == In(file));
        Assert.Contains((await _daemon.Client.EventsOfAsync("web1", s_none)).Events, e => e.Kind is "disk-committed");
    }

    /// <summary>The top is removed; what is between only if the worker had it open, which this one has not.</summary>
    [Fact]
    public async Task Files_that_are_needed_no_more_are_removed_when_that_is_wished()
    {
        using (FileStream held = File.OpenRead(In("middle.qcow2")))
        {
            JobInfo job = await BeginAsync(new DiskCommitWish("root.img", Delete: true));
            await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
            Mirrored();
            Assert.Equal(JobState.Done, (await _daemon.EndAsync(job)).State);
        }

        Assert.False(File.Exists(In("top.qcow2")));
        Assert.True(File.Exists(In("root.img")));
    }

    [Fact]
    public async Task What_another_vm_has_is_not_removed_or_committed_to()
    {
        Over("other.qcow2", "middle.qcow2", ImageFormat.Qcow2);
        await _daemon.CreateAsync("web2", "disks:\n  - {path: other.qcow2, format: qcow2}\n");
        JobInfo ended = await _daemon.EndAsync(await BeginAsync());
        Assert.Equal((409, "disk-in-use"), (ended.Error!.Status, ended.Error.Code));
        Assert.Contains("middle.qcow2 is a disk of web2, or below one", ended.Error.Detail, StringComparison.Ordinal);
        Assert.Null(Worker.CopyTo);
        await _daemon.Client.DeleteAsync("web2", s_none);
        Over("above.qcow2", "top.qcow2", ImageFormat.Qcow2);
        await _daemon.CreateAsync("web2", "disks:\n  - {path: above.qcow2, format: qcow2}\n");
        ended = await _daemon.EndAsync(await BeginAsync());
        Assert.Equal((409, "disk-in-use"), (ended.Error!.Status, ended.Error.Code)); // it stands on all of them
    }

    [Fact]
    public async Task A_cancelled_commit_leaves_the_disk()
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
    public async Task A_base_that_fails_fails_the_job_only(bool noSpace, int status, string code)
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Worker.CopyInfo = Worker.CopyInfo with { Problem = "the base is broken", NoSpace = noSpace };
        JobInfo ended = await _daemon.EndAsync(job);
        Assert.Equal((JobState.Failed, status, code), (ended.State, ended.Error!.Status, ended.Error.Code));
        Assert.Contains($"the base is broken; the VM goes on with {In("top.qcow2")}", ended.Error.Detail, StringComparison.Ordinal);
        await UnchangedAsync();
    }

    [Fact]
    public async Task A_worker_that_refuses_leaves_nothing_behind()
    {
        Worker.RefuseCommit = new WorkerException(ControlCodes.DiskInUse, "disk middle.qcow2 is in use by somebody");
        JobInfo ended = await _daemon.EndAsync(await BeginAsync());
        Assert.Equal((409, "disk-in-use"), (ended.Error!.Status, ended.Error.Code));
        await UnchangedAsync();
    }

    /// <summary>The worst moment: the spec names the base, and it fails before the worker is there.</summary>
    [Fact]
    public async Task A_base_that_fails_in_the_last_moment_gives_the_spec_its_file_back()
    {
        JobInfo job = await BeginAsync(new DiskCommitWish("root.img", Delete: true));
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Worker.RefuseStep = step =>
        {
            if (step != DiskCopyStep.Finish)
            {
                return null;
            }

            Worker.CopyInfo = Worker.CopyInfo with { Problem = "the base is broken" };
            return new WorkerException(ControlCodes.DiskCopyFailed, "the base is broken");
        };
        Mirrored();
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        await UnchangedAsync();
        Assert.Contains("format: qcow2", Record().Spec, StringComparison.Ordinal);
        Assert.Equal([DiskCopyStep.Seal, DiskCopyStep.Finish, DiskCopyStep.Cancel], Worker.CopySteps);
    }

    /// <summary>A worker that dies behind the write of the spec has everything in the base.</summary>
    [Theory]
    [InlineData(DiskCopyStep.Seal, "top.qcow2")]
    [InlineData(DiskCopyStep.Finish, "root.img")]
    public async Task A_worker_that_dies_leaves_the_disk_that_the_spec_names(DiskCopyStep dies, string disk)
    {
        JobInfo job = await BeginAsync(new DiskCommitWish("root.img"));
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        FakeWorker worker = Worker;
        worker.RefuseStep = step =>
        {
            if (step != dies)
            {
                return null;
            }

            worker.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
            return new WorkerException("worker-died", "it is gone");
        };
        Mirrored();
        await _daemon.EndAsync(job);
        Assert.Contains(disk, await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        await DaemonFixture.UntilAsync(() => Record().Commit is null);
    }

    [Fact]
    public async Task The_plug_can_be_pulled_and_the_commit_is_over_then()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        Assert.Equal(VmState.Stopped, (await _daemon.Client.DoAsync("web1", "stop", s_none)).State);
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        await UnchangedAsync();
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task What_must_not_meet_a_commit_is_refused_and_says_so()
    {
        JobInfo job = await BeginAsync();
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        JobInfo[] refused =
        [
            await _daemon.EndAsync(await _daemon.Client.SaveAsync("web1", Path.Combine(_daemon.Folder, "saved"), s_none)),
            await _daemon.EndAsync(await _daemon.Client.CopyDiskAsync("web1", "disk1", new DiskCopyWish(In("copy.img")), s_none)),
            await _daemon.EndAsync(await _daemon.Client.StreamDiskAsync("web1", "disk0", new DiskStreamWish(), s_none)),
            await _daemon.EndAsync(await BeginAsync()),
        ];
        Assert.All(refused, other => Assert.Equal((409, "disk-copying"), (other.Error!.Status, other.Error.Code)));
        Assert.All(refused, other => Assert.Contains("disk0 is being committed to", other.Error!.Detail, StringComparison.Ordinal));
        Problem problem = await DaemonFixture.RefusedAsync(
            () => _daemon.Client.DetachAsync("web1", "disk0", TimeSpan.Zero, force: true, forGood: true, s_none));
        Assert.Equal((409, "disk-copying"), (problem.Status, problem.Code));
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        await _daemon.EndAsync(job);
    }

    [Theory]
    [InlineData("disk1", null, null, "is no image")]
    [InlineData("disk7", null, null, "disk7")]
    [InlineData("disk0", "", null, "expected a path")]
    [InlineData("disk0", "missing.img", null, "does not stand on missing.img; below it are: ")]
    [InlineData("disk0", "top.qcow2", null, "does not stand on")]
    [InlineData("disk0", null, 0ul, "expected more, or none")]
    public async Task A_commit_that_cannot_be_is_refused(string disk, string? into, ulong? rate, string problem)
    {
        JobInfo ended = await _daemon.EndAsync(await _daemon.Client.CommitDiskAsync(
            "web1", disk, new DiskCommitWish(into, BytesPerSecond: rate), s_none));
        Assert.Contains(problem, ended.Error!.Detail, StringComparison.Ordinal);
        Assert.Null(Worker.CopyTo);
        Assert.Null(Record().Commit);
    }

    /// <summary>What the image says is a guest's word: an own disk is not written as a base, and nothing outside the folders is.</summary>
    [Theory]
    [InlineData("data.img", "is another disk of the VM")]
    [InlineData("/etc/hostname", "is not in a storage folder")]
    public async Task A_base_that_an_image_names_without_right_is_refused(string named, string problem)
    {
        ImageRebase.Rename(In("top.qcow2"), named, named == "data.img" ? "raw" : "qcow2");
        JobInfo ended = await _daemon.EndAsync(await BeginAsync());
        Assert.Contains(problem, ended.Error!.Detail, StringComparison.Ordinal);
        Assert.Null(Worker.CopyTo);
    }

    /// <summary>A later daemon finds a commit that was not finished: it gives it up in the worker, and touches no file.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_commit_of_an_earlier_daemon_that_the_spec_does_not_know_is_given_up(bool alive)
    {
        FakeWorker worker = Worker;
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Copying, "disk0", 10, 100);
        await CutOffAsync(spec => spec, alive);
        Assert.Equal(alive ? [DiskCopyStep.Cancel] : [], worker.CopySteps);
        Assert.Contains("path: top.qcow2", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
    }

    /// <summary>It finds one whose base the spec names: the worker goes over, or is gone and has left everything there.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_commit_of_an_earlier_daemon_that_the_spec_knows_is_finished(bool alive)
    {
        FakeWorker worker = Worker;
        await worker.CopyDiskAsync("disk0", new Spec.DiskSpec { Path = In("root.img") }, new DiskCopyWish(In("root.img")), s_none);
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Sealed, "disk0", 100, 100);
        await CutOffAsync(
            spec => spec.Replace("top.qcow2", In("root.img"), StringComparison.Ordinal).Replace("format: qcow2", "format: raw",
                StringComparison.Ordinal), alive);
        Assert.Equal(alive ? [DiskCopyStep.Finish] : [], worker.CopySteps);
        Assert.Contains("root.img", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
    }

    private string In(string name) => Path.Combine(_daemon.Folder, name);

    private void Over(string name, string below, ImageFormat format) =>
        Qcow2Creator.Create(In(name), Qcow2CreateOptions.Over(below, format, 1 << 20));

    private void Mirrored() => Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored, CopiedBytes = 100 };

    private Task<JobInfo> BeginAsync(DiskCommitWish? wish = null) =>
        _daemon.Client.CommitDiskAsync("web1", "disk0", wish ?? new DiskCommitWish(), s_none);

    private async Task UnchangedAsync()
    {
        Assert.All(new[] { "top.qcow2", "middle.qcow2", "root.img" }, each => Assert.True(File.Exists(In(each))));
        Assert.Contains("top.qcow2", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        Assert.Null(Record().Commit);
    }

    private VmRecord Record()
    {
        using VmInventory inventory = VmInventory.Open(Path.Combine(_daemon.Options.StateFolder, "inventory.db"));
        return inventory.Vms.All().Single(vm => vm.Name == "web1");
    }

    /// <summary>As if the daemon had died in a commit, with the spec as it was at that moment; the next one has settled that.</summary>
    private async Task CutOffAsync(Func<string, string> edit, bool alive)
    {
        await _daemon.StopDaemonAsync();
        DiskCommitRecord commit = new("disk0", In("top.qcow2"), In("root.img"), IsImage: false);
        _daemon.LeaveRecord(record => record with { Spec = edit(record.Spec), Commit = commit });
        if (!alive)
        {
            _daemon.Workers.Alive.Clear();
        }

        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => Record().Commit is null);
    }
}
