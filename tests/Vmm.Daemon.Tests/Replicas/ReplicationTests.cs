using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>The primary's side of replication, against a site whose points are real files.</summary>
public sealed class ReplicationTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private ReplicaHarness _all = null!;

    public async Task InitializeAsync() => _all = await ReplicaHarness.StartAsync();

    public async Task DisposeAsync() => await _all.DisposeAsync();

    [Fact]
    public async Task Points_have_what_the_vm_wrote_and_only_what_changed_is_sent()
    {
        ReplicaInfo begun = await _all.EnableAsync();
        Assert.Equal((3600, "disk0,disk1"), (begun.IntervalSeconds, string.Join(',', begun.Disks)));
        await _all.SyncAsync();
        await _all.SameAsync();
        Assert.All(_all.Site.Offered[0].Disks, disk => Assert.Equal("it is the first point", disk.Why));
        Assert.Equal(_all.Site.Offer!.Generations.Current, _all.Site.Offered[0].Generation);
        Assert.Contains(_all.In("kernel"), _all.Site.Offered[0].Spec, StringComparison.Ordinal); // its paths are whole

        byte[] changed = await File.ReadAllBytesAsync(_all.In("data.img"));
        changed[500_000] = 1;
        await File.WriteAllBytesAsync(_all.In("data.img"), changed);
        await _all.SyncAsync();
        await _all.SameAsync();
        ReplicaPointOffer last = _all.Site.Offered[^1];
        Assert.All(last.Disks, disk => Assert.Null(disk.Why));
        Assert.All(last.Disks, disk => Assert.True(disk.Stored < 70_000, $"{disk.Name}: {disk.Stored}"));
        Assert.False(last.IsLast);

        ReplicaInfo info = await _all.UntilAsync(ReplicaState.InSync);
        Assert.Equal((last.Time, (ulong)0, (string?)null), (info.NewestPoint, info.SpoolBytes, info.LastError));
        Assert.Equal("disk0: it is the first point; disk1: it is the first point", info.WhyFull);
        Assert.Single(await _all.ToldAsync("replica-first-point"));
        Assert.Single(await _all.ToldAsync("replica-full-copy"));
        await UnchangedAsync();
    }

    [Fact]
    public async Task A_vm_that_is_off_is_cut_once_and_again_after_it_ran()
    {
        _all.Worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        await _all.Daemon.StateSoonAsync("web1", VmState.Stopped);
        await _all.EnableAsync();
        await _all.SyncAsync();
        await _all.SyncAsync();
        Assert.True(Assert.Single(_all.Site.Offered).IsLast);
        await _all.SameAsync();

        await _all.Daemon.Client.DoAsync("web1", "start", s_none);
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(3));
        await _all.SyncAsync();
        Assert.Equal([true, false], _all.Site.Offered.Select(point => point.IsLast));
        await _all.SameAsync();
    }

    /// <summary>The daemon goes and comes: what was cut is sent, what was sent is known, and nothing is copied again.</summary>
    [Theory]
    [InlineData("offer")]
    [InlineData("send")]
    [InlineData("seal")]
    [InlineData("find")]
    public async Task A_daemon_that_ends_at_any_step_costs_no_full_copy(string step)
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        _all.Site.Before = call =>
        {
            if (call == step)
            {
                throw new PeerException("peer-unreachable", "cut off at " + step);
            }
        };
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(2));
        JobInfo job = await _all.JobAsync("sync");
        Assert.Equal((JobState.Failed, "peer-unreachable"), (job.State, job.Error?.Code));
        await _all.UntilAsync(ReplicaState.Disconnected);

        await _all.Daemon.StopDaemonAsync();
        _all.Site.Before = _ => { };
        await _all.Daemon.StartDaemonAsync();
        await _all.SyncAsync();
        await _all.SameAsync();
        Assert.All(_all.Site.Offered.Skip(1).SelectMany(point => point.Disks), disk => Assert.Null(disk.Why));
        Assert.Equal("disk0: it is the first point; disk1: it is the first point", (await _all.InfoAsync()).WhyFull);
    }

    /// <summary>The site has the point, and its answer was lost with the daemon: it is acknowledged, not sent twice.</summary>
    [Fact]
    public async Task A_point_whose_acknowledgement_was_lost_is_not_sent_again()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        int before = _all.Site.Points.Points.Count;
        bool isSealed = false;
        _all.Site.Before = call =>
        {
            if (isSealed)
            {
                throw new PeerException("peer-unreachable", "gone");
            }

            isSealed = call == "seal";
        };
        _all.Site.Says = info => isSealed ? throw new PeerException("peer-unreachable", "its answer was lost") : info;
        JobInfo job = await _all.JobAsync("sync");
        Assert.Equal(JobState.Failed, job.State);
        Assert.Equal(before + 1, _all.Site.Points.Points.Count);
        long received = _all.Site.Received;
        await _all.Daemon.StopDaemonAsync();
        (_all.Site.Before, _all.Site.Says) = (_ => { }, info => info);
        await _all.Daemon.StartDaemonAsync();
        await _all.UntilAsync(ReplicaState.InSync);
        await DaemonFixture.UntilAsync(() => Spooled().Length == 0);
        // The new daemon has made a cut of its own: what came besides is that one.
        long others = (long)_all.Site.Offered.Skip(before + 1).Sum(point => point.Disks.Sum(disk => (decimal)disk.Stored));
        Assert.Equal(received + others, _all.Site.Received);
    }

    /// <summary>Sending goes on where it was, also when the site has less than it said.</summary>
    [Fact]
    public async Task Sending_goes_on_from_what_has_arrived()
    {
        byte[] noise = new byte[12 << 20];
        new Random(5).NextBytes(noise);
        await File.WriteAllBytesAsync(_all.In("root.img"), noise);
        int sends = 0;
        _all.Site.Before = call =>
        {
            if (call == "send" && ++sends == 3)
            {
                throw new PeerException("peer-unreachable", "cut off");
            }
        };
        await _all.EnableAsync();
        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SameAsync();
        Assert.Equal((long)_all.Site.Offered[0].Disks.Sum(disk => (decimal)disk.Stored), _all.Site.Received);
    }

    [Fact]
    public async Task Cuts_wait_here_while_the_site_is_away_up_to_a_bound_and_then_become_one()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        _all.Site.Before = _ => throw new PeerException("peer-unreachable", "away");
        for (int i = 0; i < 8; i++)
        {
            await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(10 + i));
            Assert.Equal("peer-unreachable", (await _all.JobAsync("sync")).Error?.Code);
        }

        JobInfo full = await _all.JobAsync("sync");
        Assert.Equal("replica-waits", full.Error?.Code);
        Assert.Contains("8 points", full.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal(8, Spooled().Length);
        ReplicaInfo away = await _all.InfoAsync();
        Assert.Equal(ReplicaState.Disconnected, away.State);
        Assert.Contains("away", away.LastError!, StringComparison.Ordinal);
        Assert.True(away.SpoolBytes > 0 && away.AgeSeconds >= 0);

        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(30));
        _all.Site.Before = _ => { };
        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SyncAsync();
        await _all.SameAsync();
        Assert.Empty(Spooled());
    }

    [Theory]
    [InlineData("vm")]
    [InlineData("newest")]
    [InlineData("arrived")]
    public async Task A_site_that_lies_is_told_of_and_nothing_is_lost(string lie)
    {
        _all.Site.Says = info => lie switch
        {
            "vm" => throw new PeerException("peer-lies", "what it answers is about another VM"),
            "newest" => info.Intake is null ? info : info with { Intake = info.Intake with { Id = Guid.NewGuid().ToString("D") } },
            _ => info.Intake is null ? info : info with { Intake = info.Intake with { Arrived = [ulong.MaxValue, 0] } },
        };
        if (lie is "vm")
        {
            Problem refused = await DaemonFixture.RefusedAsync(() => _all.EnableAsync());
            Assert.Equal((502, "peer-lies"), (refused.Status, refused.Code));
            _all.Site.Says = info => info;
            await _all.EnableAsync();
        }
        else
        {
            await _all.EnableAsync();
            for (int i = 0; i < 400 && (await _all.InfoAsync()).LastError is null; i++)
            {
                await Task.Delay(25);
            }

            Assert.Contains("does not say how much", (await _all.InfoAsync()).LastError!, StringComparison.Ordinal);
            _all.Site.Says = info => info;
        }

        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SameAsync();
    }

    /// <summary>A point that the site refuses twice: hashes are fetched, what differs is cut, and no disk is copied whole.</summary>
    [Fact]
    public async Task A_point_that_is_refused_twice_leads_to_a_resync_by_hashes()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        int refusals = 0;
        _all.Site.Before = call =>
        {
            if (call == "seal" && refusals++ < 2)
            {
                _all.Site.RefuseSeal = "bit rot";
            }
        };
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(4));
        _ = await _all.JobAsync("sync");
        await DaemonFixture.UntilAsync(() => refusals > 2);
        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SameAsync();
        Assert.All(_all.Site.Offered.Skip(1).SelectMany(point => point.Disks), disk => Assert.Null(disk.Why));
        Assert.Contains("bit rot", Assert.Single(await _all.ToldAsync("replica-resyncing")), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_site_that_lost_its_points_gets_all_again_and_the_reason_is_told()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        _all.Site.LosePoints();
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(5));
        _ = await _all.JobAsync("sync");
        await DaemonFixture.UntilAsync(() => _all.Site.Newest is not null);
        ReplicaInfo info = await _all.UntilAsync(ReplicaState.InSync);
        await _all.SameAsync();
        Assert.StartsWith("the recovery site has lost its points", info.WhyFull, StringComparison.Ordinal);
        Assert.Equal(2, (await _all.ToldAsync("replica-full-copy")).Count);
    }

    [Fact]
    public async Task A_resync_finds_what_was_changed_behind_everybodys_back_and_sends_that_alone()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        byte[] edited = await File.ReadAllBytesAsync(_all.In("root.img"));
        edited[900_000] ^= 1;
        await File.WriteAllBytesAsync(_all.In("root.img"), edited);
        JobInfo job = await _all.JobAsync("resync");
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        await _all.SameAsync();
        Assert.All(_all.Site.Offered[^1].Disks, disk => Assert.True(disk.Why is null && disk.Stored < 70_000));
        Assert.Contains("asked for it", Assert.Single(await _all.ToldAsync("replica-resyncing")), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Verify_says_that_both_are_the_same_or_which_extents_differ()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        JobInfo same = await _all.JobAsync("verify");
        Assert.True(same.State == JobState.Done, same.Error?.Detail);
        Assert.Single(await _all.ToldAsync("replica-verified"));

        string root = new('a', 64);
        _all.Site.Says = info => info with { Roots = [.. info.Roots.Select((disk, i) => i == 0 ? disk with { Root = root } : disk)] };
        JobInfo differs = await _all.JobAsync("verify");
        Assert.Equal("replica-differs", differs.Error?.Code);
        Assert.Contains("disk0: 0 extents", differs.Error!.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain("disk1", differs.Error.Detail, StringComparison.Ordinal);
        _all.Site.Says = info => info;
        await _all.UntilAsync(ReplicaState.InSync);
    }

    private string[] Spooled()
    {
        string spool = Path.Combine(_all.Daemon.Options.MachinesFolder, "web1", "replica", "spool");
        return Directory.Exists(spool) ? Directory.GetDirectories(spool, "0*") : [];
    }

    private async Task UnchangedAsync()
    {
        await DaemonFixture.UntilAsync(() => _all.Daemon.Record() is { Snapshot: null, Commit: null });
        Assert.Equal(
            [_all.In("root.img"), _all.In("data.img"), _all.In("cd.iso")],
            (await _all.Daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(device => device.Source));
        Assert.Empty(Directory.GetFiles(_all.Daemon.Folder, "*.vmm-replica-*"));
    }
}
