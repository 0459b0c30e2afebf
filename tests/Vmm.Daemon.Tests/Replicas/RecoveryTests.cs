using Vmm.Contracts.Rest;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>Recovery points of a VM of another host, and VMs on them. Files are real, workers are fakes.</summary>
public sealed class RecoveryTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private RecoverySite _site = null!;

    public async Task InitializeAsync() => _site = await RecoverySite.StartAsync();

    public async Task DisposeAsync() => await _site.DisposeAsync();

    [Fact]
    public async Task Points_are_told_and_are_there_for_the_next_daemon()
    {
        TestPrimary primary = await _site.ReplicaAsync(3);
        foreach (bool again in (bool[])[false, true])
        {
            if (again)
            {
                await _site.Daemon.RestartAsync();
            }

            RecoveryInfo info = await _site.InfoAsync();
            Assert.Equal((primary.Vm, "host-a", ReplicaSiteState.Receiving), (info.Vm, info.Source, info.State));
            Assert.Equal(primary.History.Keys, info.Points.Select(point => point.Id));
            Assert.Equal([1, 2, 3], info.Points.Select(point => point.Number));
            Assert.True(info.AgeSeconds >= 0);
            Assert.All(info.Points, point => Assert.True(point is { Bytes: > 0, UsedBy.Count: 0, IsLast: false }));
            Assert.Equal("web1", Assert.Single((await _site.Client.ReplicasAsync(s_none)).Received).Name);
            string metrics = await _site.Daemon.GetAsync("/metrics");
            Assert.Contains("vmm_replica_points{vm=\"web1\"} 3\n", metrics, StringComparison.Ordinal);
            Assert.Contains("vmm_replica_state{vm=\"web1\",state=\"receiving\"} 1\n", metrics, StringComparison.Ordinal);
        }

        await _site.DoneAsync(_site.Client.VerifyReplicaPointAsync("web1", new FailoverWish(2), s_none));
        await primary.ReplicateAsync(4);
        Assert.Equal(4, (await _site.InfoAsync()).Points.Count);
    }

    [Fact]
    public async Task Several_tests_stand_on_different_points_while_replication_goes_on()
    {
        TestPrimary primary = await _site.ReplicaAsync(3);
        await _site.Client.CreateNetworkAsync(new NetworkRequest("lab", Isolated: true), s_none);
        await _site.DoneAsync(_site.Client.TestFailoverAsync("web1", new FailoverWish(Point: 1), s_none));
        await _site.DoneAsync(_site.Client.TestFailoverAsync("web1", new FailoverWish(Network: "lab"), s_none));
        await primary.ReplicateAsync(9);
        RecoveryInfo info = await _site.InfoAsync();
        Assert.Equal(["web1-test-1", "web1-test-2"], info.Tests);
        Assert.Equal([["web1-test-1"], [], ["web1-test-2"], []], info.Points.Select(point => point.UsedBy));
        string[] points = [.. primary.History.Keys];
        Assert.Equal(primary.History[points[0]], _site.HashesOf("web1-test-1"));
        Assert.Equal(primary.History[points[2]], _site.HashesOf("web1-test-2"));

        VmSpec alone = await SpecOfAsync("web1-test-1"), lab = await SpecOfAsync("web1-test-2");
        Assert.Empty(alone.Nets);
        NetSpec net = Assert.Single(lab.Nets);
        Assert.Equal(("lab", MacAddress.Text(MacAddress.Default("web1", 0))), (net.Network, net.Mac));
        Assert.Equal(primary.Vm, alone.Smbios?.Uuid);
        Assert.Equal("A1", alone.Disks[0].Serial);
        Assert.Equal(VmState.Running, (await _site.Client.ShowAsync("web1-test-1", s_none)).State);
        Assert.NotEqual(primary.Vm, (await _site.Client.ShowAsync("web1-test-1", s_none)).Id);

        Assert.Equal("replica-in-use", (await DaemonFixture.RefusedAsync(() => _site.Client.DeleteReplicaAsync("web1", s_none))).Code);
        await _site.Client.DeleteTestAsync("web1", "web1-test-1", s_none);
        await _site.Client.DoAsync("web1-test-2", "stop", s_none);
        await _site.Client.DeleteAsync("web1-test-2", s_none); // as any VM
        Assert.Empty((await _site.InfoAsync()).Tests);
        Assert.Empty((await _site.Client.ListAsync(s_none)).Vms);
        Assert.Empty(Directory.GetDirectories(_site.Daemon.Options.MachinesFolder));
        await _site.Client.DeleteReplicaAsync("web1", s_none);
        Assert.False(Directory.Exists(_site.FolderOf("web1")));
        Assert.Equal("replica-not-found", (await DaemonFixture.RefusedAsync(() => _site.InfoAsync())).Code);
    }

    [Fact]
    public async Task A_failover_that_would_lose_data_needs_the_name_and_one_after_the_last_cut_does_not()
    {
        TestPrimary primary = await _site.ReplicaAsync(2);
        foreach (string? typed in (string?[])[null, "web", "WEB1"])
        {
            Problem problem = await DaemonFixture.RefusedAsync(
                () => _site.Client.FailoverAsync("web1", new FailoverWish(Confirm: typed), s_none));
            Assert.Equal((409, "replica-unconfirmed"), (problem.Status, problem.Code));
            Assert.Contains("--confirm web1", problem.Detail, StringComparison.Ordinal);
        }

        Assert.Equal(ReplicaSiteState.Receiving, (await _site.InfoAsync()).State);
        SpooledPoint last = await primary.ReplicateAsync(3, isLast: true);
        Assert.Contains("1 newer points", (await DaemonFixture.RefusedAsync(
            () => _site.Client.FailoverAsync("web1", new FailoverWish(Point: 2), s_none))).Detail, StringComparison.Ordinal);
        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Networks: ["br-there=br-here"]), s_none));
        Assert.Equal(primary.Vm, (await _site.Client.ShowAsync("web1", s_none)).Id);
        Assert.Equal(VmState.Running, (await _site.Client.ShowAsync("web1", s_none)).State);
        Assert.Equal(primary.History[last.Point.Id.ToString()], _site.HashesOf("web1"));
        Assert.Equal("br-here", Assert.Single((await SpecOfAsync("web1")).Nets).Bridge);
    }

    [Fact]
    public async Task A_failover_is_cancelled_another_point_is_taken_and_committed()
    {
        TestPrimary primary = await _site.ReplicaAsync(2);
        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1"), s_none));
        ReplicaSiteInfo alone = await primary.StatusAsync();
        Assert.Equal((ReplicaSiteState.FailedOver, primary.Generation), (alone.State, alone.Generations.LastCommon));
        Assert.NotEqual(primary.Generation, alone.Generations.Current);
        Problem refused = await DaemonFixture.RefusedAsync(() => primary.ReplicateAsync(5));
        Assert.Equal((409, "replica-failed-over"), (refused.Status, refused.Code));
        Assert.Equal("replica-failed-over", (await DaemonFixture.RefusedAsync(
            () => _site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1"), s_none))).Code);
        Assert.Equal("replica-failed-over", (await DaemonFixture.RefusedAsync(() => _site.Client.DeleteReplicaAsync("web1", s_none))).Code);

        await _site.DoneAsync(_site.Client.CancelFailoverAsync("web1", s_none));
        Assert.Empty((await _site.Client.ListAsync(s_none)).Vms);
        Assert.Empty(Directory.GetDirectories(_site.Daemon.Options.MachinesFolder));
        ReplicaSiteInfo again = await primary.StatusAsync();
        Assert.Equal((ReplicaSiteState.Receiving, primary.Generation), (again.State, again.Generations.Current));
        Assert.Equal("replica-receiving", (await DaemonFixture.RefusedAsync(() => _site.Client.CancelFailoverAsync("web1", s_none))).Code);

        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Point: 1, Confirm: "web1", Start: false), s_none));
        Assert.Equal(VmState.Defined, (await _site.Client.ShowAsync("web1", s_none)).State);
        Assert.Equal(primary.History.Values.First(), _site.HashesOf("web1"));
        RecoveryInfo committed = await _site.Client.CommitFailoverAsync("web1", s_none);
        Assert.Equal((ReplicaSiteState.Committed, "web1"), (committed.State, committed.FailedOverTo));
        Assert.Equal(ReplicaSiteState.Committed, (await primary.PairAsync()).State);
        foreach (Func<Task> later in (Func<Task>[])
        [
            () => _site.Client.CancelFailoverAsync("web1", s_none), () => _site.Client.CommitFailoverAsync("web1", s_none),
            () => primary.ReplicateAsync(6),
        ])
        {
            Assert.Equal("replica-failed-over", (await DaemonFixture.RefusedAsync(later)).Code);
        }

        Assert.Equal("replica-in-use", (await DaemonFixture.RefusedAsync(() => _site.Client.DeleteReplicaAsync("web1", s_none))).Code);
    }

    [Fact]
    public async Task The_firmwares_variables_come_with_the_point()
    {
        TestPrimary primary = await _site.ReplicaAsync(0);
        byte[] variables = [.. Enumerable.Range(0, 540_672).Select(i => (byte)i)];
        await primary.ReplicateAsync(1, variables: Convert.ToBase64String(variables));
        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1"), s_none));
        string path = Path.Combine(_site.Daemon.Options.StateFolder, "variables", primary.Vm + ".fd");
        Assert.Equal(variables, await File.ReadAllBytesAsync(path));
    }

    [Fact]
    public async Task What_cannot_run_here_is_refused_by_name_and_makes_nothing()
    {
        TestPrimary primary = await _site.ReplicaAsync(1);
        string kernel = Path.Combine(_site.Daemon.Folder, "kernel");
        File.Move(kernel, kernel + ".away");
        await RefusedAsync(new FailoverWish(Confirm: "web1"), "replica-cannot-run", $"{kernel} does not exist");
        File.Move(kernel + ".away", kernel);
        await RefusedAsync(new FailoverWish(Confirm: "web1", Networks: ["br0=br1"]), "replica-invalid", "br0: no network device");
        await RefusedAsync(new FailoverWish(Confirm: "web1", Networks: ["br0"]), "replica-invalid", "expected FROM=TO");
        await RefusedAsync(new FailoverWish(Confirm: "web1", Point: 7), "replica-no-point", "point 7");
        await RefusedAsync(new FailoverWish(Confirm: "web1", As: "../x"), "replica-invalid", "as: expected the name");
        await RefusedAsync(new FailoverWish(Confirm: "web1", Network: "lab"), "replica-invalid", "test failovers");
        await _site.Daemon.CreateAsync("other");
        await RefusedAsync(new FailoverWish(Confirm: "web1", As: "other"), "name-taken", "--as");
        await _site.Client.DeleteAsync("other", s_none);
        Problem none = (await _site.EndAsync(_site.Client.TestFailoverAsync("web1", new FailoverWish(Network: "nolab"), s_none))).Error!;
        Assert.Contains("nolab", none.Detail, StringComparison.Ordinal);
        primary.Spec = primary.Spec.Replace("  - path: /there/data.img\n", "", StringComparison.Ordinal);
        await primary.ReplicateAsync(2);
        await RefusedAsync(new FailoverWish(Confirm: "web1"), "replica-cannot-run", "no disk1");
        primary.Spec = "name: web1\nnosuch: 1\n";
        await primary.ReplicateAsync(3);
        await RefusedAsync(new FailoverWish(Confirm: "web1"), "replica-cannot-run", "nosuch");
        RecoveryInfo info = await _site.InfoAsync();
        Assert.Equal((ReplicaSiteState.Receiving, 3), (info.State, info.Points.Count));
        Assert.Empty(info.Tests);
        Assert.Empty((await _site.Client.ListAsync(s_none)).Vms);

        async Task RefusedAsync(FailoverWish wish, string code, string named)
        {
            Problem problem = await DaemonFixture.RefusedAsync(() => _site.Client.FailoverAsync("web1", wish, s_none));
            Assert.Equal(code, problem.Code);
            Assert.Contains(named, problem.Detail, StringComparison.Ordinal);
        }
    }

    /// <summary>What is not replicated and can be written is not in a test; the VM at the primary may have it.</summary>
    [Fact]
    public async Task A_test_reaches_nothing_of_what_the_vm_reaches()
    {
        TestPrimary primary = await _site.ReplicaAsync(0);
        await File.WriteAllBytesAsync(Path.Combine(_site.Daemon.Folder, "scratch.img"), new byte[4096]);
        await File.WriteAllBytesAsync(Path.Combine(_site.Daemon.Folder, "cd.iso"), new byte[4096]);
        primary.Spec = primary.Spec.Replace("nets:\n", $$"""
              - path: {{_site.Daemon.Folder}}/scratch.img
              - path: {{_site.Daemon.Folder}}/cd.iso
                readOnly: true
            vsock: {path: {{_site.Daemon.Folder}}/web1.sock}
            autostart: true
            generationId: 6b29fc40-ca47-1067-b31d-00dd010662da
            nets:

            """, StringComparison.Ordinal);
        await primary.ReplicateAsync(1);
        await _site.DoneAsync(_site.Client.TestFailoverAsync("web1", new FailoverWish(As: "try"), s_none));
        VmSpec spec = await SpecOfAsync("try");
        Assert.Equal(
            [_site.DiskOf("try", "disk0"), _site.DiskOf("try", "disk1"), $"{_site.Daemon.Folder}/cd.iso"],
            spec.Disks.Select(disk => disk.Path));
        Assert.Equal((null, false), (spec.Vsock, spec.Autostart));
        Assert.NotEqual("6b29fc40-ca47-1067-b31d-00dd010662da", spec.GenerationId);
        string told = _site.Daemon.Host.Vms.Events.Of("web1").Last(e => e.Kind is "replica").Message!;
        Assert.Contains($"disk2 ({_site.Daemon.Folder}/scratch.img), which is not replicated", told, StringComparison.Ordinal);

        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1", Start: false), s_none));
        spec = await SpecOfAsync("web1");
        Assert.Equal((4, true), (spec.Disks.Count, spec.Autostart));
        Assert.NotEqual("6b29fc40-ca47-1067-b31d-00dd010662da", spec.GenerationId);
    }

    [Fact]
    public async Task Old_points_go_by_the_policy_and_never_one_in_use()
    {
        TestPrimary primary = await _site.ReplicaAsync(0);
        DateTimeOffset then = DateTimeOffset.UtcNow.AddHours(-9);
        primary.Keep = new ReplicaKeep(9 * 3600 + 60, 0, 0);
        await primary.PairAsync();
        for (int i = 0; i < 4; i++)
        {
            await primary.ReplicateAsync(i + 1, time: then.AddHours(i));
        }

        await _site.DoneAsync(_site.Client.TestFailoverAsync("web1", new FailoverWish(Point: 2), s_none));
        primary.Keep = new ReplicaKeep(60, 0, 0);
        await primary.PairAsync();
        SpooledPoint newest = await primary.ReplicateAsync(9);
        string[] ids = [.. primary.History.Keys];
        await DaemonFixture.UntilAsync(() => _site.InfoAsync().Result.Points is { Count: <= 3 } points && points.Any(p => p.Number == 2));
        Assert.Equal(primary.History[ids[1]], _site.HashesOf("web1-test-1"));
        await _site.Client.DeleteTestAsync("web1", "web1-test-1", s_none);
        newest = await primary.ReplicateAsync(10);
        await DaemonFixture.UntilAsync(() => _site.InfoAsync().Result.Points.Count <= 2);
        await _site.DoneAsync(_site.Client.VerifyReplicaPointAsync("web1", new FailoverWish(), s_none));
        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1"), s_none));
        Assert.Equal(primary.History[newest.Point.Id.ToString()], _site.HashesOf("web1"));
    }

    /// <summary>vmmd dies at each step of a failover and of its end: the next one finishes or undoes it.</summary>
    [Theory]
    [InlineData(false, FailoverStep.Making, ReplicaSiteState.Receiving)]
    [InlineData(true, FailoverStep.Making, ReplicaSiteState.FailedOver)]
    [InlineData(true, FailoverStep.Made, ReplicaSiteState.FailedOver)]
    [InlineData(true, FailoverStep.Cancelling, ReplicaSiteState.Receiving)]
    [InlineData(false, FailoverStep.Cancelling, ReplicaSiteState.Receiving)]
    internal async Task A_daemon_that_dies_in_a_failover_is_followed_by_one_that_settles_it(
        bool isMade, FailoverStep step, ReplicaSiteState expected)
    {
        TestPrimary primary = await _site.ReplicaAsync(2);
        await _site.DoneAsync(_site.Client.FailoverAsync("web1", new FailoverWish(Confirm: "web1", Start: isMade), s_none));
        if (!isMade)
        {
            await _site.Client.DeleteAsync("web1", s_none);
        }

        await _site.Daemon.StopDaemonAsync();
        SiteRecord left = SiteFile.Read(_site.FolderOf("web1"));
        SiteFile.Write(_site.FolderOf("web1"), left with { Failover = left.Failover! with { Step = step } });
        File.WriteAllText(Path.Combine(_site.FolderOf("web1"), "site.json.part"), "{"); // a write that was cut off
        await _site.Daemon.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _site.InfoAsync().Result.State == expected);
        bool isThere = (await _site.Client.ListAsync(s_none)).Vms.Any(vm => vm.Name is "web1");
        Assert.Equal(expected == ReplicaSiteState.FailedOver, isThere);
        if (expected == ReplicaSiteState.Receiving)
        {
            Assert.Equal(primary.Generation, (await primary.StatusAsync()).Generations.Current);
            await primary.ReplicateAsync(7);
        }
        else
        {
            Assert.Equal(primary.History.Values.Last(), _site.HashesOf("web1"));
            await _site.Client.CommitFailoverAsync("web1", s_none);
        }
    }

    [Fact]
    public async Task A_test_that_was_not_made_and_folders_on_their_way_are_gone_with_the_next_daemon()
    {
        _ = await _site.ReplicaAsync(1);
        await _site.Daemon.StopDaemonAsync();
        SiteRecord left = SiteFile.Read(_site.FolderOf("web1"));
        SiteFile.Write(_site.FolderOf("web1"), left with { Tests = [new TestRecord("web1-test-1", Guid.NewGuid().ToString(), 1)] });
        Directory.CreateDirectory(_site.FolderOf(".gone.part"));
        Directory.CreateDirectory(_site.FolderOf("odd"));
        await File.WriteAllTextAsync(Path.Combine(_site.FolderOf("odd"), "site.json"), "{\"format\":1}");
        await _site.Daemon.StartDaemonAsync();
        Assert.Empty(SiteFile.Read(_site.FolderOf("web1")).Tests);
        Assert.False(Directory.Exists(_site.FolderOf(".gone.part")));
        Assert.True(Directory.Exists(_site.FolderOf("odd"))); // nobody asked for that
        Assert.Contains("cannot be read", _site.Daemon.Host.Vms.Events.Of("odd").Single().Message!, StringComparison.Ordinal);
        Assert.Single((await _site.Client.ReplicasAsync(s_none)).Received);
    }

    private async Task<VmSpec> SpecOfAsync(string vm) => SpecReader.Read(await _site.Client.SpecAsync(vm, s_none), vm);
}
