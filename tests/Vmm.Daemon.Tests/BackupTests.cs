using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Backups of a VM: what is in the points, which files are the disks then and when something fails. Files are real, workers are fakes: what
/// one says to have merged was empty.
/// </summary>
public sealed class BackupTests : IAsyncLifetime
{
    private const int Bytes = 1 << 20;

    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(In("root.img"), Content(1));
        Qcow2Creator.Create(In("data.qcow2"), new Qcow2CreateOptions { DiskSize = 8 << 20 });
        await File.WriteAllBytesAsync(In("cd.iso"), new byte[Bytes]);
        await _daemon.CreateAsync("web1", """
            disks:
              - path: root.img # the system
              - {path: data.qcow2, format: qcow2}
              - {path: cd.iso, readOnly: true}

            """);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    private string Points => In("points");

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Points_have_the_disks_as_they_were_and_the_vm_has_its_files_again(bool runs)
    {
        if (runs)
        {
            await _daemon.Client.DoAsync("web1", "start", s_none);
        }

        JobInfo job = await BackupAsync(new BackupRequest(Points));
        Assert.Equal((JobState.Done, "backup", "web1"), (job.State, job.Kind, job.Target));
        byte[] then = Content(2);
        await File.WriteAllBytesAsync(In("root.img"), then);
        Assert.Equal(JobState.Done, (await BackupAsync(new BackupRequest(Points))).State);
        BackupFolder folder = BackupFolder.Open(Points);
        Assert.Equal([1, 2], folder.Points.Select(point => point.Number));
        Assert.All(folder.Points, point => Assert.Equal(["disk0", "disk1"], point.Point!.Disks.Select(disk => disk.Name)));
        Assert.Equal(
            ["it is the first backup", "it is the first backup", null, null],
            folder.Points.SelectMany(point => point.Point!.Disks).Select(disk => disk.Why));
        BackupRestorer.Restore(folder, folder.Require(1), "disk0", In("one"), "raw");
        BackupRestorer.Restore(folder, folder.Require(2), "disk0", In("two"), "raw");
        Assert.Equal(Content(1), await File.ReadAllBytesAsync(In("one")));
        Assert.Equal(then, await File.ReadAllBytesAsync(In("two")));
        await UnchangedAsync();
        string[] told = [.. (await _daemon.Client.EventsOfAsync("web1", s_none)).Events
            .Where(e => e.Kind is "backup").Select(e => e.Message!)];
        Assert.Equal(2, told.Length);
        Assert.StartsWith($"point 1 is in {Points}: disk0 ", told[0], StringComparison.Ordinal);
        Assert.EndsWith("that changed", told[1], StringComparison.Ordinal);
    }

    /// <summary>The overlay of a backup that could not merge it is the VM's disk; the next one brings both back.</summary>
    [Fact]
    public async Task An_overlay_that_stays_is_told_of_and_merged_by_the_next_backup()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        Worker.RefuseCommit = new WorkerException(ControlCodes.DiskCopyFailed, "not now");
        JobInfo job = await BackupAsync(new BackupRequest(Points, ["disk0"]));
        Assert.Equal(JobState.Done, job.State);
        string overlay = Assert.Single(Directory.GetFiles(_daemon.Folder, "root.vmm-backup-*.qcow2"));
        string told = (await _daemon.Client.EventsOfAsync("web1", s_none)).Events.Last(e => e.Kind is "backup").Message!;
        Assert.Contains($"disk0 goes on in {overlay} until the next backup", told, StringComparison.Ordinal);
        Assert.Contains("not now", told, StringComparison.Ordinal);
        Assert.Contains(overlay, await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);

        Worker.RefuseCommit = null;
        Assert.Equal(JobState.Done, (await BackupAsync(new BackupRequest(Points, ["disk0"]))).State);
        Assert.Null(BackupFolder.Open(Points).Require(2).Point!.Disks[0].Why);
        await UnchangedAsync();
    }

    [Theory]
    [InlineData("{folder}/points", "disk7", 404, "device-not-found", "has no disk disk7")]
    [InlineData("{folder}/points", "disk2", 422, "backup-invalid", "read only")]
    [InlineData("{folder}/points", "disk0,disk0", 422, "backup-invalid", "named twice")]
    [InlineData("points", "disk0", 422, "backup-invalid", "expected a whole path")]
    [InlineData("/etc/points", "disk0", 422, "backup-refused", "in no storage folder")]
    [InlineData("{folder}/missing/points", "disk0", 422, "backup-refused", "does not exist")]
    [InlineData("{folder}/root.img", "disk0", 422, "backup-refused", "root.img")]
    public async Task What_cannot_be_is_refused_and_makes_nothing(string folder, string disks, int status, string code, string problem)
    {
        foreach (bool runs in (bool[])[false, true])
        {
            if (runs)
            {
                await _daemon.Client.DoAsync("web1", "start", s_none);
            }

            BackupRequest wish = new(folder.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal), disks.Split(','));
            JobInfo job = await BackupAsync(wish);
            Assert.Equal((JobState.Failed, status, code), (job.State, job.Error!.Status, job.Error.Code));
            Assert.Contains(problem, job.Error.Detail, StringComparison.Ordinal);
            await UnchangedAsync();
        }
    }

    /// <summary>It is cancelled while it reads: no point, and the VM goes on in its own files.</summary>
    [Fact]
    public async Task A_backup_that_is_cancelled_leaves_nothing_and_one_goes_on_at_a_time()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        JobInfo slow = await _daemon.Client.BackupAsync("web1", new BackupRequest(Points, BytesPerSecond: 1), s_none);
        await DaemonFixture.UntilAsync(() => Directory.Exists(Points) && Directory.GetDirectories(Points, ".part-*").Length > 0);
        JobInfo second = await _daemon.EndAsync(await _daemon.Client.BackupAsync("web1", new BackupRequest(Points), s_none));
        Assert.Equal("backup-running", second.Error!.Code);
        using CancellationTokenSource over = new();
        Task merging = MirrorAsync(over.Token);
        _ = await _daemon.Client.CancelJobAsync(slow.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _daemon.EndAsync(slow)).State);
        await over.CancelAsync();
        await merging;
        Assert.Empty(BackupFolder.Open(Points).Points);
        Assert.Empty(Directory.GetDirectories(Points));
        await UnchangedAsync();
    }

    [Fact]
    public async Task A_folder_of_another_vm_is_refused_by_its_name()
    {
        await File.WriteAllBytesAsync(In("other.img"), new byte[Bytes]);
        await _daemon.CreateAsync("web2", "disks:\n  - path: other.img\n");
        Assert.Equal(JobState.Done, (await BackupAsync(new BackupRequest(Points))).State);
        JobInfo job = await _daemon.EndAsync(await _daemon.Client.BackupAsync("web2", new BackupRequest(Points), s_none));
        Assert.Equal("backup-refused", job.Error!.Code);
        Assert.Contains($"folder {Points} has backups of another one, web1", job.Error.Detail, StringComparison.Ordinal);
    }

    private static byte[] Content(int seed)
    {
        byte[] content = new byte[Bytes];
        new Random(seed).NextBytes(content.AsSpan(seed * 100_000, 70_000));
        return content;
    }

    private async Task<JobInfo> BackupAsync(BackupRequest wish)
    {
        using CancellationTokenSource over = new();
        Task merging = MirrorAsync(over.Token);
        JobInfo job = await _daemon.EndAsync(await _daemon.Client.BackupAsync("web1", wish, s_none));
        await over.CancelAsync();
        await merging;
        return job;
    }

    // Each commit that a worker is asked for is as far as it can be at once.
    private async Task MirrorAsync(CancellationToken over)
    {
        while (!over.IsCancellationRequested)
        {
            foreach (FakeWorker worker in _daemon.Workers.Alive.Values)
            {
                if (worker.CopyInfo.State is DiskCopyState.Copying)
                {
                    worker.CopyInfo = worker.CopyInfo with { State = DiskCopyState.Mirrored };
                }
            }

            await Task.Delay(10, CancellationToken.None);
        }
    }

    private async Task UnchangedAsync()
    {
        Assert.Equal(
            [In("root.img"), In("data.qcow2"), In("cd.iso")],
            (await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(device => device.Source));
        Assert.Empty(Directory.GetFiles(_daemon.Folder, "*.vmm-backup-*"));
        Assert.Null(_daemon.Record().Snapshot);
        Assert.Null(_daemon.Record().Commit);
    }

    private string In(string name) => Path.Combine(_daemon.Folder, name);
}
