using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>Snapshots of a VM whose guest is asked to freeze.</summary>
public sealed class QuiescedSnapshotTests : IAsyncLifetime
{
    private const string Frozen = "{\"v\":1,\"frozen\":2,\"left\":0}\n", Thawed = "{\"v\":1,\"thawed\":2,\"late\":false}\n";
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;
    private string _freeze = Frozen, _thaw = Thawed;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(Path.Combine(_daemon.Folder, "root.img"), new byte[1 << 20]);
        await _daemon.CreateAsync("web1", $"vsock: {{cid: 7, path: {Vsock}}}\ndisks:\n  - path: root.img\n");
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private string Vsock => Path.Combine(_daemon.Folder, "v");

    private string Overlay => Path.Combine(_daemon.Folder, "root.s1.qcow2");

    [Fact]
    public async Task The_guest_is_frozen_while_the_disks_change()
    {
        await using FakeGuest guest = await StartAsync();
        string[] asked = [];
        _daemon.Workers.Alive.Values.Single().RefuseSnapshot = () =>
        {
            asked = [.. guest.Asked];
            return null;
        };
        Assert.Equal(JobState.Done, (await TakeAsync(30)).State);
        Assert.Equal(["CONNECT 1028", "{\"v\":1,\"freeze\":{\"seconds\":30}}"], asked);
        Assert.Equal([.. asked, "{\"v\":1,\"thaw\":true}"], guest.Asked);
        Assert.Equal("quiesced: 2 file systems", await SaidAsync());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_guest_that_refuses_is_told_of_and_stops_only_what_requires_it(bool required)
    {
        await using FakeGuest guest = await StartAsync();
        _freeze = "{\"v\":1,\"error\":\"no right\"}\n";
        JobInfo job = await TakeAsync(required ? null : 9, required);
        Assert.Contains("{\"v\":1,\"freeze\":{\"seconds\":" + (required ? "10}}" : "9}}"), guest.Asked);
        Assert.Equal(required ? JobState.Failed : JobState.Done, job.State);
        Assert.Equal(required ? null : "not quiesced: no right", await SaidAsync());
        Assert.Equal(!required, File.Exists(Overlay));
        Assert.Equal(!required, (await _daemon.Client.SpecAsync("web1", s_none)).Contains("s1", StringComparison.Ordinal));
        Assert.Equal(required ? (409, "not-quiesced") : default, (job.Error?.Status ?? 0, job.Error?.Code));
        Assert.EndsWith(required ? "not quiesced: no right; no snapshot was taken" : "", job.Error?.Detail ?? "", StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_snapshot_that_fails_thaws()
    {
        await using FakeGuest guest = await StartAsync();
        _daemon.Workers.Alive.Values.Single().RefuseSnapshot = () => new WorkerException("disk-snapshot-failed", "no");
        Assert.Equal(JobState.Failed, (await TakeAsync(30)).State);
        Assert.Equal("{\"v\":1,\"thaw\":true}", guest.Asked[^1]);
        Assert.False(File.Exists(Overlay));
    }

    [Fact]
    public async Task A_freeze_that_did_not_last_fails_what_requires_it_and_says_that_the_snapshot_is_there()
    {
        await using FakeGuest guest = await StartAsync();
        _thaw = "{\"v\":1,\"thawed\":2,\"late\":true}\n";
        JobInfo job = await TakeAsync(30, required: true);
        Assert.Equal("not-quiesced", job.Error?.Code);
        Assert.Contains("thawed by itself before the end", job.Error!.Detail, StringComparison.Ordinal);
        Assert.EndsWith("the snapshot was taken all the same", job.Error.Detail, StringComparison.Ordinal);
        Assert.True(File.Exists(Overlay));
        Assert.Contains("s1", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_vm_that_is_off_has_nothing_to_freeze()
    {
        await using FakeGuest guest = new(Vsock, Answer);
        Assert.Equal(JobState.Done, (await TakeAsync(30, required: true)).State);
        Assert.Empty(guest.Asked);
        Assert.Null(await SaidAsync());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(61)]
    public async Task A_freeze_has_a_limit(int seconds)
    {
        await using FakeGuest guest = await StartAsync();
        JobInfo job = await TakeAsync(seconds);
        Assert.Equal((422, "snapshot-invalid"), (job.Error!.Status, job.Error.Code));
        Assert.Empty(guest.Asked);
    }

    private string? Answer(string line) => line.Contains("\"freeze\"", StringComparison.Ordinal) ? _freeze
        : line.Contains("\"thaw\"", StringComparison.Ordinal) ? _thaw
        : null;

    private async Task<FakeGuest> StartAsync()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        return new FakeGuest(Vsock, Answer);
    }

    private async Task<JobInfo> TakeAsync(int? seconds, bool required = false)
    {
        JobInfo job = await _daemon.Client.SnapshotAsync(
            "web1", new SnapshotWish("s1", QuiesceSeconds: seconds, QuiesceRequired: required), s_none);
        while (job.State == JobState.Running)
        {
            await Task.Delay(20);
            job = await _daemon.Client.JobAsync(job.Id, s_none);
        }

        return job;
    }

    private async Task<string?> SaidAsync() => (await _daemon.Client.EventsOfAsync("web1", s_none)).Events
        .LastOrDefault(e => e.Kind is "guest-quiesce")?.Message;
}
