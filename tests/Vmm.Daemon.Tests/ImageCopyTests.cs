using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Spec;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Copies of images and of servers' disks: what is made, and what the spec says in the end. The files are real, the workers are fakes.
/// </summary>
public sealed class ImageCopyTests : IAsyncLifetime
{
    private const string Server = "/run/vmm-test/nbd.sock", Uri = "nbd+unix:///b?socket=/run/vmm-test/nbd.sock";

    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync(_ => new DaemonOptions { NbdServers = [Server] });
        await File.WriteAllBytesAsync(In("base.img"), new byte[4 << 20]);
        await File.WriteAllBytesAsync(In("raw.img"), new byte[1 << 20]);
        Qcow2Creator.Create(In("alone.qcow2"), new Qcow2CreateOptions { DiskSize = 3 << 20 });
        Qcow2Creator.Create(In("top.qcow2"), Qcow2CreateOptions.Over("base.img", Vmm.Storage.ImageFormat.Raw, 4 << 20));
        Directory.CreateDirectory(In("fast"));
        await _daemon.CreateAsync("web1", $$"""
            disks:
              - {path: top.qcow2, format: qcow2} # the system
              - path: raw.img
              - nbd: {socket: {{Server}}, export: a, reconnect: 7}
              - {path: alone.qcow2, format: qcow2}
              - {path: base.img, readOnly: true}

            """);
        await _daemon.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    private DiskSpec DiskNow(int index) => SpecReader.Read(_daemon.Record().Spec, "spec", _daemon.Folder).Disks[index];

    [Theory]
    [InlineData("disk0", null, false, "qcow2", 4 << 20)]
    [InlineData("disk0", "raw", false, "raw", 4 << 20)]
    [InlineData("disk0", null, true, "qcow2", 4 << 20)]
    [InlineData("disk1", null, false, "raw", 1 << 20)]
    [InlineData("disk1", "qcow2", false, "qcow2", 1 << 20)]
    [InlineData("disk2", null, false, "raw", 6 << 20)]
    [InlineData("disk2", "qcow2", false, "qcow2", 6 << 20)]
    [InlineData("disk3", null, false, "qcow2", 3 << 20)]
    public async Task A_disk_goes_on_in_a_file_of_the_format_that_was_asked_for(
        string device, string? format, bool topOnly, string made, ulong bytes)
    {
        Worker.DiskSize = 6 << 20; // of the server's
        JobInfo job = await BeginAsync(device, new DiskCopyWish(In("fast/new"), Format: format, TopOnly: topOnly));
        (string Path, string Format, ulong Size)[] chain =
            [.. ImageChainInfo.Read(In("fast/new"), made).Select(image => (image.Path, image.Format, image.Size))];
        Assert.Equal((In("fast/new"), made, bytes), chain[0]);
        Assert.Equal(topOnly ? [(In("base.img"), "raw", 4ul << 20)] : [], chain[1..]);
        Assert.Equal(topOnly, Worker.CopyWish!.TopOnly);
        int index = device[^1] - '0';
        DiskSpec before = DiskNow(index);
        Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored, CopiedBytes = 100 };
        Assert.Equal((JobState.Done, null), ((await _daemon.EndAsync(job)).State, _daemon.Record().Copy));
        DiskSpec now = DiskNow(index);
        Assert.Equal((In("fast/new"), made, null), (now.Path, Names.Of(now.Format), now.Nbd));
        Assert.Equal(now, before with { Source = now.Source });
        Assert.Contains("# the system", index == 0 ? "# the system" : _daemon.Record().Spec, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_copy_of_the_top_has_clusters_as_the_top_has()
    {
        JobInfo job = await BeginAsync("disk0", new DiskCopyWish(In("fast/new"), TopOnly: true));
        Vmm.Storage.Qcow2.Qcow2Geometry clusters = Header("fast/new").Geometry;
        Assert.Equal((Header("top.qcow2").Geometry, "raw"), (clusters, Header("fast/new").BackingFormat));
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        await _daemon.EndAsync(job);
        Assert.False(File.Exists(In("fast/new")));
    }

    [Fact]
    public async Task A_disk_goes_to_a_server_and_no_file_is_made_or_removed()
    {
        JobInfo job = await BeginAsync("disk1", new DiskCopyWish(Uri));
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _daemon.EndAsync(job)).State);
        job = await BeginAsync("disk1", new DiskCopyWish(Uri));
        Assert.Equal((Uri, Server, "b"), (Worker.CopyTo!.Path, Worker.CopyTo.Nbd!.Socket, Worker.CopyTo.Nbd.Export));
        Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored };
        Assert.Equal(JobState.Done, (await _daemon.EndAsync(job)).State);
        Assert.Equal((Uri, Server), (DiskNow(1).Path, DiskNow(1).Nbd!.Socket));
        Assert.True(File.Exists(In("raw.img")));
    }

    /// <summary>The spec gets all of it back that it said: the format, and the server with its times.</summary>
    [Theory]
    [InlineData("disk0", null)]
    [InlineData("disk2", "qcow2")]
    public async Task A_target_that_fails_in_the_last_moment_gives_the_spec_its_disk_back(string device, string? format)
    {
        DiskSpec before = DiskNow(device[^1] - '0');
        JobInfo job = await BeginAsync(device, new DiskCopyWish(In("fast/new"), Format: format ?? "raw"));
        Worker.RefuseStep = step =>
        {
            Worker.CopyInfo = Worker.CopyInfo with { Problem = step == DiskCopyStep.Finish ? "it is broken" : null };
            return step == DiskCopyStep.Finish ? new WorkerException(ControlCodes.DiskCopyFailed, "it is broken") : null;
        };
        Worker.CopyInfo = Worker.CopyInfo with { State = DiskCopyState.Mirrored };
        Assert.Equal(JobState.Failed, (await _daemon.EndAsync(job)).State);
        Assert.Equal((before, false), (DiskNow(device[^1] - '0'), File.Exists(In("fast/new"))));
    }

    /// <summary>The same by a daemon that comes later: what the disk was is in the inventory.</summary>
    [Fact]
    public async Task A_later_daemon_gives_the_spec_its_server_back()
    {
        DiskSpec before = DiskNow(2);
        await BeginAsync("disk2", new DiskCopyWish(In("fast/new")));
        FakeWorker worker = Worker;
        worker.RefuseStep = step => step == DiskCopyStep.Cancel ? new WorkerException(ControlCodes.WrongState, "it has ended") : null;
        DiskCopyRecord begun = _daemon.Record().Copy!;
        await _daemon.StopDaemonAsync(); // gives up
        await File.WriteAllBytesAsync(In("fast/new"), new byte[1 << 20]);
        worker.CopyInfo = new DiskCopyInfo(DiskCopyState.Sealed, "disk2", 100, 100, "the target is broken");
        _daemon.LeaveRecord(record => record with
        {
            Copy = begun,
            Spec = SpecEdit.ReplaceDisk(record.Spec, _daemon.Folder, 2, new DiskSpec { Path = In("fast/new") })!,
        });
        await _daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _daemon.Record().Copy is null);
        Assert.Equal((before, false), (DiskNow(2), File.Exists(In("fast/new"))));
    }

    [Theory]
    [InlineData("disk0", "{folder}/a", "vhd", false, "expected raw or qcow2")]
    [InlineData("disk0", "{folder}/a", "raw", true, "only a qcow2 image stands on others")]
    [InlineData("disk1", "{folder}/a", "qcow2", true, "is no image")]
    [InlineData("disk3", "{folder}/a", null, true, "has no backing file")]
    [InlineData("disk4", "{folder}/a", null, false, "is read-only for this VM")]
    [InlineData("disk0", "{folder}/top.qcow2", null, false, "is there already")]
    [InlineData("disk0", "{folder}/base.img", null, true, "disks[4].path")]
    [InlineData("disk0", "nbd://other/x", null, false, "\"nbdServers\" in vmmd.yaml")]
    [InlineData("disk0", "nbd+unix:///x", null, false, "socket=PATH is missing")]
    [InlineData("disk0", Uri, "qcow2", false, "expected raw, or a file to copy to")]
    [InlineData("disk0", Uri, null, true, "expected raw, or a file to copy to")]
    public async Task A_copy_that_cannot_be_is_refused_and_makes_nothing(
        string disk, string to, string? format, bool topOnly, string problem)
    {
        DiskCopyWish wish = new(to.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal), Format: format, TopOnly: topOnly);
        JobInfo ended = await _daemon.EndAsync(await _daemon.Client.CopyDiskAsync("web1", disk, wish, s_none));
        Assert.Equal(422, ended.Error!.Status);
        Assert.Contains(problem, ended.Error.Detail, StringComparison.Ordinal);
        Assert.Equal((null, false, null), (Worker.CopyTo, File.Exists(In("a")), _daemon.Record().Copy));
    }

    private string In(string name) => Path.Combine(_daemon.Folder, name);

    private Vmm.Storage.Qcow2.Qcow2Header Header(string name) => Vmm.Storage.Qcow2.Qcow2Header.Parse(File.ReadAllBytes(In(name)), name);

    private async Task<JobInfo> BeginAsync(string device, DiskCopyWish wish)
    {
        JobInfo job = await _daemon.Client.CopyDiskAsync("web1", device, wish, s_none);
        await DaemonFixture.UntilAsync(() => Worker.CopyInfo is { State: DiskCopyState.Copying } info && info.Device == device);
        return job;
    }
}
