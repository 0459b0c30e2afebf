using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>What operators do with a replica at the primary, and what they are told.</summary>
public sealed class ReplicaOperationsTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private ReplicaHarness _all = null!;

    public async Task InitializeAsync() => _all = await ReplicaHarness.StartAsync();

    public async Task DisposeAsync() => await _all.DisposeAsync();

    [Fact]
    public async Task A_pause_has_an_owner_and_an_end_and_holds_everything()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        ReplicaInfo held = await _all.Daemon.Client.PauseReplicaAsync("web1", new ReplicaPauseWish("a night", 3600), s_none);
        Assert.Equal((ReplicaState.Suspended, "a night"), (held.State, held.Suspension!.Reason));
        Assert.StartsWith("uid=", held.Suspension.Owner, StringComparison.Ordinal);
        JobInfo refused = await _all.JobAsync("sync");
        Assert.Equal("replica-suspended", refused.Error?.Code);
        await _all.Daemon.RestartAsync(); // it outlives a daemon
        Assert.Equal("a night", (await _all.InfoAsync()).Suspension?.Reason);
        int offered = _all.Site.Offered.Count;

        await _all.Daemon.Client.ResumeReplicaAsync("web1", s_none);
        await _all.SyncAsync();
        Assert.Null((await _all.UntilAsync(ReplicaState.InSync)).Suspension);
        Assert.True(_all.Site.Offered.Count > offered);

        await _all.Daemon.Client.PauseReplicaAsync("web1", new ReplicaPauseWish(null, 1), s_none);
        await _all.UntilAsync(ReplicaState.InSync); // by itself
    }

    /// <summary>The site has failed over: nothing is sent, both histories are told; when that is cancelled it goes on by itself.</summary>
    [Fact]
    public async Task A_site_that_failed_over_is_never_written_and_a_cancel_ends_the_fence()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        (string current, int points) = (_all.Site.Generations!.Current, _all.Site.Points.Points.Count);
        _all.Site.State = ReplicaSiteState.FailedOver;
        _all.Site.Generations = new ReplicaGenerations(Guid.NewGuid().ToString("D"), current);
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(6));
        JobInfo job = await _all.JobAsync("sync");
        Assert.Equal("replica-fenced", job.Error?.Code);
        string told = Assert.Single(await _all.ToldAsync("replica-fenced"));
        Assert.Contains(current, told, StringComparison.Ordinal);
        Assert.Contains(_all.Site.Generations.Current, told, StringComparison.Ordinal);
        Assert.Equal("replica-fenced", (await _all.JobAsync("resync")).Error?.Code);
        Assert.Equal(points, _all.Site.Points.Points.Count);

        (_all.Site.State, _all.Site.Generations) = (ReplicaSiteState.Receiving, new ReplicaGenerations(current));
        await _all.Daemon.RestartAsync(); // or half a minute later
        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SyncAsync();
        await _all.SameAsync();
    }

    [Fact]
    public async Task Another_history_is_overwritten_by_a_person_only()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        int points = _all.Site.Points.Points.Count;
        _all.Site.Generations = new ReplicaGenerations(Guid.NewGuid().ToString("D"));
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(6));
        await _all.Daemon.RestartAsync();
        await _all.UntilAsync(ReplicaState.Fenced);
        Assert.Equal(points, _all.Site.Points.Points.Count);
        JobInfo job = await _all.JobAsync("resync");
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        await _all.SameAsync();
        ReplicaInfo info = await _all.UntilAsync(ReplicaState.InSync);
        Assert.NotEqual("", info.Generations.LastCommon);
    }

    [Fact]
    public async Task A_replicated_vm_is_not_deleted_and_ending_it_tells_the_site_and_leaves_no_files()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        string own = Path.Combine(_all.Daemon.Options.MachinesFolder, "web1");
        Assert.True(Directory.Exists(Path.Combine(own, "replica", "trees")));
        _all.Worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        await _all.Daemon.StateSoonAsync("web1", VmState.Stopped);
        Problem refused = await DaemonFixture.RefusedAsync(() => _all.Daemon.Client.DeleteAsync("web1", s_none));
        Assert.Equal("vm-replicated", refused.Code);

        await _all.Daemon.Client.EndReplicaAsync("web1", s_none);
        Assert.True(_all.Site.IsEnded);
        Assert.False(Directory.Exists(own));
        Assert.Equal("replica-not-found", (await DaemonFixture.RefusedAsync(_all.InfoAsync)).Code);
        await _all.Daemon.Client.DeleteAsync("web1", s_none);
    }

    [Fact]
    public async Task Ending_it_needs_no_answer_of_the_site()
    {
        await _all.EnableAsync();
        _all.Site.Before = _ => throw new PeerException("peer-unreachable", "away for good");
        await _all.Daemon.Client.EndReplicaAsync("web1", s_none);
        Assert.Contains("away for good", Assert.Single(await _all.ToldAsync("replica-disabled")), StringComparison.Ordinal);
        await _all.Daemon.RestartAsync();
        Assert.Equal("replica-not-found", (await DaemonFixture.RefusedAsync(_all.InfoAsync)).Code);
    }

    /// <summary>A replica that is there of this VM goes on by its hashes: nothing is copied whole.</summary>
    [Fact]
    public async Task Enabling_it_anew_costs_no_full_copy()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        await _all.Daemon.Client.EndReplicaAsync("web1", s_none);
        await File.WriteAllBytesAsync(_all.In("data.img"), ReplicaHarness.Content(6));
        await _all.EnableAsync();
        await _all.UntilAsync(ReplicaState.InSync);
        await _all.SameAsync();
        Assert.All(_all.Site.Offered[^1].Disks, disk => Assert.Null(disk.Why));
    }

    [Fact]
    public async Task A_disk_that_is_added_comes_whole_and_one_that_is_removed_is_in_no_further_point()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        await File.WriteAllBytesAsync(_all.In("more.img"), ReplicaHarness.Content(7));
        await _all.Daemon.Client.AttachAsync("web1", "disks", $"path: {_all.In("more.img")}", stay: true, s_none);
        await _all.SyncAsync();
        ReplicaPointOffer point = _all.Site.Offered[^1];
        Assert.Equal(
            [("disk0", true), ("disk1", true), ("disk3", false)], point.Disks.Select(disk => (disk.Name, disk.Why is null)));
        await _all.SameAsync("root.img", "data.img", "more.img");
        Assert.StartsWith("disk3: ", (await _all.InfoAsync()).WhyFull, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_disk_that_has_grown_sends_what_is_new()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        using (FileStream data = File.OpenWrite(_all.In("data.img")))
        {
            data.SetLength(2 * ReplicaHarness.Bytes);
            data.Position = ReplicaHarness.Bytes + 5;
            data.WriteByte(9);
        }

        await _all.SyncAsync();
        Assert.All(_all.Site.Offered[^1].Disks, disk => Assert.Null(disk.Why));
        await _all.SameAsync();
    }

    /// <summary>What the log says is read and sent, and nothing else; a log that knows nothing has all hashes compared.</summary>
    [Fact]
    public async Task What_a_change_log_names_is_sent_and_nothing_else_is_read()
    {
        await using ReplicaHarness all = await ReplicaHarness.StartAsync(logs: true);
        all.Worker.LoggedBytes = ReplicaHarness.Bytes;
        await all.EnableAsync();
        await all.SyncAsync();
        await all.SameAsync();
        byte[] content = await File.ReadAllBytesAsync(all.In("data.img"));
        (content[2 << 16], content[5 << 16]) = (1, 1);
        await File.WriteAllBytesAsync(all.In("data.img"), content);
        LoggedWrite.Do(all.Worker.Logs["disk1"], 2 << 16);
        await all.SyncAsync();
        Assert.Null(all.Site.Offered[^1].Disks[1].Why);

        // Extent 5 was written behind the log's back: only this shows that it is trusted.
        content[5 << 16] = 0;
        await File.WriteAllBytesAsync(all.In("data.img"), content);
        await all.SameAsync();

        // And the log of a disk that was acknowledged names nothing any more.
        await all.SyncAsync();
        await all.SameAsync();
        Assert.All(all.Site.Offered[^1].Disks, disk => Assert.InRange(disk.Stored, 0u, 2048u));
        Assert.Equal(["disk0", "disk1"], all.Daemon.Host.Vms.Get("web1").ChangeLogs.Disks);
        await all.Daemon.Client.EndReplicaAsync("web1", s_none);
        Assert.Empty(all.Daemon.Host.Vms.Get("web1").ChangeLogs.Disks);
    }

    /// <summary>An overlay that could not be merged is the VM's disk for a while; the next cut brings both back.</summary>
    [Fact]
    public async Task An_overlay_that_stays_is_merged_by_the_next_cut()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        _all.Worker.RefuseCommit = new WorkerException(ControlCodes.DiskCopyFailed, "not now");
        await _all.SyncAsync();
        Assert.NotEmpty(Directory.GetFiles(_all.Daemon.Folder, "*.vmm-replica-*"));
        _all.Worker.RefuseCommit = null;
        await _all.SyncAsync();
        Assert.Empty(Directory.GetFiles(_all.Daemon.Folder, "*.vmm-replica-*"));
        await _all.SameAsync();
    }

    /// <summary>A backup reads the disks: the cut does not wait, and says why there is none.</summary>
    [Fact]
    public async Task A_cut_is_skipped_while_a_backup_reads_the_disks()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        JobInfo backup = await _all.Daemon.Client.BackupAsync("web1", new BackupRequest(_all.In("points"), BytesPerSecond: 1), s_none);
        string points = _all.In("points");
        await DaemonFixture.UntilAsync(() => Directory.Exists(points) && Directory.GetDirectories(points, ".part-*").Length > 0);
        JobInfo job = await _all.JobAsync("sync");
        Assert.Equal("vm-busy", job.Error?.Code);
        Assert.Contains("a backup goes on", (await _all.InfoAsync()).LastError!, StringComparison.Ordinal);
        await _all.Daemon.Client.CancelJobAsync(backup.Id, s_none);
        await _all.Daemon.EndAsync(backup);
        await _all.SyncAsync();
    }

    [Theory]
    [InlineData(4, null, null, null, "intervalSeconds")]
    [InlineData(3601, null, null, null, "intervalSeconds")]
    [InlineData(30, 0, null, null, "bytesPerSecond")]
    [InlineData(30, null, 61, null, "quiesceSeconds")]
    [InlineData(30, null, null, "disk2", "read only")]
    [InlineData(30, null, null, "disk7", "no disk disk7")]
    [InlineData(30, null, null, "disk0,disk0", "named twice")]
    public async Task What_cannot_be_is_refused_and_nothing_is_told_to_the_site(
        int interval, int? rate, int? quiesce, string? disks, string problem)
    {
        Problem refused = await DaemonFixture.RefusedAsync(() => _all.Daemon.Client.ReplicateAsync(
            "web1", new ReplicaWish(ReplicaHarness.To, disks?.Split(','), interval, null, (ulong?)rate, quiesce), s_none));
        Assert.Contains(problem, refused.Detail, StringComparison.Ordinal);
        Assert.Null(_all.Site.Offer);
        Assert.Equal("replica-not-found", (await DaemonFixture.RefusedAsync(_all.InfoAsync)).Code);
    }

    [Fact]
    public async Task Wishes_are_changed_by_asking_again_and_another_site_is_refused()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        ReplicaInfo changed = await _all.Daemon.Client.ReplicateAsync(
            "web1", new ReplicaWish(ReplicaHarness.To, ["disk1"], 60, new ReplicaKeep(5, 6, 7)), s_none);
        Assert.Equal((60, "disk1"), (changed.IntervalSeconds, Assert.Single(changed.Disks)));
        await _all.SyncAsync();
        Assert.Equal("disk1", Assert.Single(_all.Site.Offered[^1].Disks).Name);
        Assert.Equal(new ReplicaKeep(5, 6, 7), _all.Site.Offer!.Keep);
        Problem refused = await DaemonFixture.RefusedAsync(() => _all.Daemon.Client.ReplicateAsync(
            "web1", new ReplicaWish("https://127.0.0.1:2"), s_none));
        Assert.Equal("replica-elsewhere", refused.Code);
    }

    [Fact]
    public async Task Metrics_tell_age_state_and_what_waits()
    {
        await _all.EnableAsync();
        await _all.SyncAsync();
        await _all.UntilAsync(ReplicaState.InSync);
        string text = await _all.Daemon.GetAsync("/metrics");
        Assert.Contains("vmm_replication_state{vm=\"web1\",state=\"inSync\"} 1\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_replication_state{vm=\"web1\",state=\"fenced\"} 0\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_replication_age_seconds{vm=\"web1\"} ", text, StringComparison.Ordinal);
        Assert.Contains("vmm_replication_spool_bytes{vm=\"web1\"} 0\n", text, StringComparison.Ordinal);
        Assert.Contains("vmm_replication_points_sent_total{vm=\"web1\"} ", text, StringComparison.Ordinal);
    }
}
