using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Snapshots of a VM's disks: which files are the disks when something fails or dies between two steps. The files are real, the workers
/// are fakes.
/// </summary>
public sealed class SnapshotTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(In("root.img"), new byte[1 << 20]);
        Qcow2Creator.Create(In("data.qcow2"), new Qcow2CreateOptions { DiskSize = 8 << 20 });
        await File.WriteAllBytesAsync(In("cd.iso"), new byte[1 << 20]);
        await _daemon.CreateAsync("web1", """
            disks:
              - path: root.img # the system
                serial: abc
              - {path: data.qcow2, format: qcow2}
              - {path: cd.iso, readOnly: true}

            """);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    private string[] Made => [.. Directory.GetFiles(_daemon.Folder, "*.s1.qcow2").Order(StringComparer.Ordinal)];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task All_disks_that_can_be_written_go_on_in_overlays(bool runs)
    {
        if (runs)
        {
            await _daemon.Client.DoAsync("web1", "start", s_none);
        }

        JobInfo job = await SnapshotAsync();
        Assert.Equal((JobState.Done, "disk-snapshot", "web1"), (job.State, job.Kind, job.Target));
        Assert.Equal([In("data.s1.qcow2"), In("root.s1.qcow2")], Made);
        Assert.Equal([(In("root.s1.qcow2"), 1ul << 20), (In("root.img"), 1ul << 20)], Chain("root.s1.qcow2"));
        Assert.Equal([(In("data.s1.qcow2"), 8ul << 20), (In("data.qcow2"), 8ul << 20)], Chain("data.s1.qcow2"));
        Assert.Equal(runs ? [In("root.s1.qcow2"), In("data.s1.qcow2")] : [], runs ? Worker.Overlays : []);
        string spec = await _daemon.Client.SpecAsync("web1", s_none);
        Assert.Contains("abc", spec, StringComparison.Ordinal);
        Assert.Equal(
            [In("root.s1.qcow2"), In("data.s1.qcow2"), In("cd.iso")],
            (await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(device => device.Source));
        Assert.All((await _daemon.Client.DevicesAsync("web1", s_none)).Devices, device => Assert.True(device.Stored));
        Assert.Null(_daemon.Record().Snapshot);
        Assert.Equal(2, (await _daemon.Client.EventsOfAsync("web1", s_none)).Events.Count(e => e.Kind is "disk-snapshot"));

        // and one more, on one disk, with a file of its own
        job = await _daemon.EndAsync(await _daemon.Client.SnapshotAsync(
            "web1", new SnapshotWish(Disks: ["disk0"], To: [In("top.qcow2")]), s_none));
        Assert.Equal(JobState.Done, job.State);
        Assert.Equal([In("top.qcow2"), In("root.s1.qcow2"), In("root.img")], Chain("top.qcow2").Select(image => image.Path));
    }

    [Theory]
    [InlineData(null, "disk2", null, 422, "read only")]
    [InlineData(null, "disk7", null, 404, "has no disk disk7")]
    [InlineData(null, "disk0", "relative.qcow2", 422, "expected a whole path")]
    [InlineData(null, "disk0", "/etc/a.qcow2", 422, "in no storage folder")]
    [InlineData(null, "disk0", "{folder}/.hidden", 422, "is no name")]
    [InlineData(null, "disk0", "{folder}/root.img", 422, "is there already")]
    [InlineData(null, "disk0", "{folder}/missing/a.qcow2", 422, "does not exist")]
    [InlineData("../a", "disk0", null, 422, "expected 1 to 64 letters")]
    [InlineData("s1", "disk0,disk0", null, 422, "named twice")]
    [InlineData(null, "disk0,disk1", "{folder}/a.s1.qcow2", 422, "one file for each")]
    public async Task What_cannot_be_is_refused_and_makes_nothing(string? name, string disks, string? to, int status, string problem)
    {
        foreach (bool runs in (bool[])[false, true])
        {
            if (runs)
            {
                await _daemon.Client.DoAsync("web1", "start", s_none);
            }

            string[]? files = to is null ? null : [to.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal)];
            SnapshotWish wish = new(name, disks.Split(','), files);
            JobInfo job = await _daemon.EndAsync(await _daemon.Client.SnapshotAsync("web1", wish, s_none));
            Assert.Equal((JobState.Failed, status), (job.State, job.Error!.Status));
            Assert.Contains(problem, job.Error.Detail, StringComparison.Ordinal);
            await UnchangedAsync();
            Assert.Equal(1 << 20, new FileInfo(In("root.img")).Length);
        }
    }

    [Fact]
    public async Task The_second_overlay_that_cannot_be_made_takes_the_first_with_it()
    {
        await File.WriteAllTextAsync(In("data.s1.qcow2"), "somebody's");
        JobInfo job = await SnapshotAsync();
        Assert.Contains("data.s1.qcow2 is there already", job.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal("somebody's", await File.ReadAllTextAsync(In("data.s1.qcow2")));
        Assert.False(File.Exists(In("root.s1.qcow2")));
    }

    /// <summary>Also with answers that come late: the spec gets its files back only when a worker says that it did not go over.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public async Task A_worker_that_has_not_gone_over_keeps_its_disks(int silences)
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        string specThen = "";
        Worker.SnapshotSilences = silences;
        Worker.RefuseSnapshot = () =>
        {
            specThen = _daemon.Record().Spec;
            return new WorkerException(ControlCodes.DiskSnapshotFailed, "disk0 hangs");
        };
        JobInfo job = await SnapshotAsync();
        Assert.Contains("root.s1.qcow2", specThen, StringComparison.Ordinal); // the spec comes first
        Assert.Equal((JobState.Failed, "disk-snapshot-failed"), (job.State, job.Error!.Code));
        Assert.Contains("disk0 hangs", job.Error.Detail, StringComparison.Ordinal);
        await UnchangedAsync();
        Worker.RefuseSnapshot = () => null;
        Assert.Equal(JobState.Done, (await SnapshotAsync()).State);
    }

    [Fact]
    public async Task A_worker_that_went_over_without_an_answer_has_the_overlays()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        (Worker.TakesRefusedSnapshot, Worker.SnapshotSilences) = (true, 2);
        Worker.RefuseSnapshot = () => new WorkerException("worker-unresponsive", "no answer");
        Assert.Equal(JobState.Done, (await SnapshotAsync()).State);
        await TakenAsync();
    }

    [Fact]
    public async Task A_worker_that_dies_on_the_way_leaves_the_overlays_as_the_disks()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = Worker;
        worker.RefuseSnapshot = () =>
        {
            worker.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
            return new WorkerException("worker-died", "it is gone");
        };
        await SnapshotAsync();
        await TakenAsync();
    }

    /// <summary>
    /// A later daemon. The spec may name the overlays or not yet; the worker may be there or not, and have gone over or not.
    /// </summary>
    [Theory]
    [InlineData(false, true, false, false)]
    [InlineData(false, false, false, false)]
    [InlineData(true, true, false, false)]
    [InlineData(true, true, true, true)]
    [InlineData(true, false, false, true)]
    public async Task A_snapshot_of_an_earlier_daemon_is_settled(bool isInSpec, bool lives, bool hasGoneOver, bool isTaken)
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = Worker;
        Qcow2Creator.Create(In("root.s1.qcow2"), Qcow2CreateOptions.Over("root.img", Vmm.Storage.ImageFormat.Raw, 1 << 20));
        Qcow2Creator.Create(In("data.s1.qcow2"), Qcow2CreateOptions.Over("data.qcow2", Vmm.Storage.ImageFormat.Qcow2, 8 << 20));
        await _daemon.StopDaemonAsync();
        _daemon.LeaveRecord(record => record with
        {
            Spec = !isInSpec ? record.Spec : record.Spec
                .Replace("path: root.img", $"path: {In("root.s1.qcow2")}\n    format: qcow2", StringComparison.Ordinal)
                .Replace("path: data.qcow2", "path: " + In("data.s1.qcow2"), StringComparison.Ordinal),
            Snapshot = new SnapshotRecord(
            [
                new SnapshotDiskRecord("disk0", In("root.img"), IsImage: false, In("root.s1.qcow2")),
                new SnapshotDiskRecord("disk1", In("data.qcow2"), IsImage: true, In("data.s1.qcow2")),
            ]),
        });

        if (hasGoneOver)
        {
            worker.Overlays.AddRange([In("root.s1.qcow2"), In("data.s1.qcow2")]);
        }

        if (!lives)
        {
            _daemon.Workers.Alive.Clear();
        }

        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _daemon.Record().Snapshot is null);
        if (isTaken)
        {
            await TakenAsync();
        }
        else
        {
            await UnchangedAsync();
        }
    }

    [Fact]
    public async Task A_snapshot_does_not_meet_a_copy()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        JobInfo copy = await _daemon.Client.CopyDiskAsync("web1", "disk0", new DiskCopyWish(In("fast.img")), s_none);
        await DaemonFixture.UntilAsync(() => Worker.CopyTo is not null);
        JobInfo job = await SnapshotAsync();
        Assert.Equal((409, "disk-copying"), (job.Error!.Status, job.Error.Code));
        Assert.Empty(Made);
        await _daemon.Client.CancelJobAsync(copy.Id, s_none);
        await _daemon.EndAsync(copy);
    }

    private async Task<JobInfo> SnapshotAsync() =>
        await _daemon.EndAsync(await _daemon.Client.SnapshotAsync("web1", new SnapshotWish("s1"), s_none));

    private string In(string name) => Path.Combine(_daemon.Folder, name);

    private static IEnumerable<(string Path, ulong Size)> ChainOf(string path) =>
        ImageChainInfo.Read(path, "qcow2").Select(image => (image.Path, image.Size));

    private IEnumerable<(string Path, ulong Size)> Chain(string name) => ChainOf(In(name));

    private async Task UnchangedAsync()
    {
        Assert.Empty(Made);
        string spec = await _daemon.Client.SpecAsync("web1", s_none);
        Assert.True(spec.Contains("root.img", StringComparison.Ordinal) && spec.Contains("data.qcow2", StringComparison.Ordinal), spec);
        Assert.Null(_daemon.Record().Snapshot);
    }

    private async Task TakenAsync()
    {
        Assert.Equal(2, Made.Length);
        string spec = await _daemon.Client.SpecAsync("web1", s_none);
        Assert.True(Made.All(file => spec.Contains(file, StringComparison.Ordinal)), spec);
        Assert.Null(_daemon.Record().Snapshot);
    }
}
