using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Moves;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>Replication between two real daemons over TLS, with workers that only pretend; bytes really go from one to the other.</summary>
#pragma warning disable CA1001 // DisposeAsync is xunit's.
public sealed class TwoSiteTests : IAsyncLifetime
#pragma warning restore CA1001
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private readonly Authority _authority = new("peers");
    private readonly CancellationTokenSource _over = new();
    private readonly int _port = FreePort(), _otherPort = FreePort();
    private X509Certificate2 _peer = null!;
    private DaemonFixture _here = null!, _there = null!;
    private Task _merging = Task.CompletedTask;

    public async Task InitializeAsync()
    {
        _peer = _authority.Client("peer");
        _here = await DaemonFixture.StartAsync(folder => Options(folder, _port));
        _there = await DaemonFixture.StartAsync(folder => Options(folder, _otherPort));
        await File.WriteAllBytesAsync(In("root.img"), ReplicaHarness.Content(1));
        await _here.CreateAsync("web1", "disks:\n  - path: root.img\n");
        await _here.Client.DoAsync("web1", "start", s_none);
        _merging = MirrorAsync();
    }

    public async Task DisposeAsync()
    {
        await _there.DisposeAsync();
        await _here.DisposeAsync();
        await _over.CancelAsync();
        await _merging;
        _over.Dispose();
        _peer.Dispose();
        _authority.Dispose();
    }

    private string There => $"https://127.0.0.1:{_otherPort}";

    [Fact]
    public async Task Points_arrive_over_tls_also_when_either_daemon_is_started_anew()
    {
        await _here.Client.ReplicateAsync("web1", new ReplicaWish(There, IntervalSeconds: 3600), s_none);
        await SyncAsync();
        await _there.RestartAsync();
        await File.WriteAllBytesAsync(In("root.img"), ReplicaHarness.Content(2));
        await UntilSyncedAsync();
        await _here.RestartAsync();
        await File.WriteAllBytesAsync(In("root.img"), ReplicaHarness.Content(3));
        await SyncAsync();

        RecoveryInfo replica = Assert.Single((await _there.Client.ReplicasAsync(s_none)).Received);
        Assert.Equal("web1", replica.Name);
        Assert.True(replica.Points.Count >= 3, $"{replica.Points.Count} points");
        ReplicaInfo sent = Assert.Single((await _here.Client.ReplicasAsync(s_none)).Sent);
        Assert.Equal((replica.Points[^1].Time, "disk0: it is the first point"), (sent.NewestPoint!.Value, sent.WhyFull));
        JobInfo verify = await JobAsync("verify");
        Assert.True(verify.State == JobState.Done, verify.Error?.Detail);

        await _there.StopDaemonAsync();
        using (ReplicaFolder points = ReplicaFolder.Open(Path.Combine(_there.Options.StateFolder, "replicas", "web1", "points")))
        {
            points.Verify(points.Newest!);
            Assert.All(points.Points.Skip(1).SelectMany(point => point.Point.Disks), disk => Assert.Null(disk.Why));
        }

        await _there.StartDaemonAsync();
    }

    [Fact]
    public async Task A_site_that_may_not_be_asked_says_why_and_nothing_is_kept()
    {
        Problem nobody = await DaemonFixture.RefusedAsync(() => _here.Client.ReplicateAsync(
            "web1", new ReplicaWish($"https://127.0.0.1:{FreePort()}"), s_none));
        Assert.Equal((502, "peer-unreachable"), (nobody.Status, nobody.Code));
        Problem odd = await DaemonFixture.RefusedAsync(() => _here.Client.ReplicateAsync("web1", new ReplicaWish("http://x"), s_none));
        Assert.Equal((422, "replica-invalid"), (odd.Status, odd.Code));
        Assert.Empty((await _here.Client.ReplicasAsync(s_none)).Sent);
    }

    [Fact]
    public async Task Ending_it_leaves_the_points_and_beginning_anew_goes_on_with_them()
    {
        await _here.Client.ReplicateAsync("web1", new ReplicaWish(There, IntervalSeconds: 3600), s_none);
        await SyncAsync();
        await _here.Client.EndReplicaAsync("web1", s_none);
        int points = Assert.Single((await _there.Client.ReplicasAsync(s_none)).Received).Points.Count;
        await File.WriteAllBytesAsync(In("root.img"), ReplicaHarness.Content(4));
        await _here.Client.ReplicateAsync("web1", new ReplicaWish(There, IntervalSeconds: 3600), s_none);
        await UntilSyncedAsync();
        RecoveryInfo replica = Assert.Single((await _there.Client.ReplicasAsync(s_none)).Received);
        Assert.True(replica.Points.Count > points);
        Assert.Null((await _here.Client.ReplicaAsync("web1", s_none)).WhyFull);
    }

    private static int FreePort()
    {
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private DaemonOptions Options(string folder, int port)
    {
        string file = Path.Combine(folder, "peer.pem"), key = Path.Combine(folder, "peer.key");
        DaemonOptions options = _authority.Options(folder, ("peer", Role.Peer, _peer));
        File.WriteAllText(file, _peer.ExportCertificatePem());
        File.WriteAllText(key, _peer.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
        return options with
        {
            Listen = new IPEndPoint(IPAddress.Loopback, port),
            Peers = new PeerOptions(file, key, Path.Combine(folder, "ca.pem")),
        };
    }

    private string In(string name) => Path.Combine(_here.Folder, name);

    private async Task<JobInfo> JobAsync(string what) =>
        await _here.EndAsync(await _here.Client.ReplicaJobAsync("web1", what, s_none));

    private async Task SyncAsync()
    {
        JobInfo job = await JobAsync("sync");
        Assert.True(job.State == JobState.Done, $"{job.Error?.Detail}; {(await _here.Client.ReplicaAsync("web1", s_none)).LastError}");
    }

    // The other daemon was away, say: the job says so, and what was cut is sent all the same.
    private async Task UntilSyncedAsync()
    {
        for (int i = 0; i < 100 && (await JobAsync("sync")).State != JobState.Done; i++)
        {
            await Task.Delay(100);
        }

        await SyncAsync();
    }

    private async Task MirrorAsync()
    {
        while (!_over.IsCancellationRequested)
        {
            foreach (FakeWorker worker in _here.Workers.Alive.Values.Where(each => each.CopyInfo.State is DiskCopyState.Copying))
            {
                worker.CopyInfo = worker.CopyInfo with { State = DiskCopyState.Mirrored };
            }

            await Task.Delay(10, CancellationToken.None);
        }
    }
}
