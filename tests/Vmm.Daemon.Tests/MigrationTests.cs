using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>
/// vm migrate between two real daemons over TLS, with workers that only pretend; bytes really go from one to the other.
/// </summary>
#pragma warning disable CA1001 // DisposeAsync is xunit's.
public sealed class MigrationTests : IAsyncLifetime
#pragma warning restore CA1001
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private readonly Authority _authority = new("peers");
    private readonly int _port = FreePort(), _otherPort = FreePort();
    private X509Certificate2 _peer = null!;
    private DaemonFixture _here = null!, _there = null!;

    public async Task InitializeAsync()
    {
        _peer = _authority.Client("peer");
        string shared = "";
        _here = await DaemonFixture.StartAsync(folder => Options(shared = folder, _port, folder, _peer, Role.Peer));
        _there = await DaemonFixture.StartAsync(folder => Options(folder, _otherPort, shared, _peer, Role.Peer));
        await _here.CreateAsync("web1");
        await _here.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync()
    {
        await _there.DisposeAsync();
        await _here.DisposeAsync();
        _peer.Dispose();
        _authority.Dispose();
    }

    private string There => $"https://127.0.0.1:{_otherPort}";

    private FakeWorker Source => _here.Workers.Alive.Values.Single();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_vm_goes_on_there_as_it_was_and_comes_back(bool paused)
    {
        if (paused)
        {
            await _here.Client.DoAsync("web1", "pause", s_none);
        }

        VmState expected = paused ? VmState.Paused : VmState.Running;
        VmInfo before = await _here.Client.ShowAsync("web1", s_none);
        FakeWorker first = Source;
        JobInfo job = await MigrateAsync();
        Assert.Equal((JobState.Done, "handed-over"), (job.State, job.Move?.Stage));
        await OnlyThereAsync(expected);
        Assert.Equal(before.Id, (await _there.Client.ShowAsync("web1", s_none)).Id);
        Assert.True(first.Ended.IsCompleted);
        Assert.Equal((null, true), (_there.Record().Move, _there.Record().WantedOn));

        job = await _there.EndAsync(await _there.Client.MigrateAsync("web1", new MigrateRequest($"https://127.0.0.1:{_port}"), s_none));
        Assert.Equal(JobState.Done, job.State);
        Assert.Empty((await _there.Client.ListAsync(s_none)).Vms);
        Assert.Empty(_there.Workers.Alive);
        Assert.Equal(expected, (await _here.Client.ShowAsync("web1", s_none)).State);

        // Its end is the VM's.
        Source.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        Assert.Equal(VmState.Stopped, await _here.StateSoonAsync("web1", VmState.Stopped));
    }

    [Theory]
    [InlineData("begin")]
    [InlineData("status")]
    [InlineData("stop")]
    [InlineData("receive")]
    [InlineData("incoming-status")]
    [InlineData("complete")]
    public async Task Whatever_fails_before_the_decision_leaves_the_vm_here(string step)
    {
        At(step, _ => throw new WorkerException("move-failed", "no luck at " + step));
        JobInfo job = await MigrateAsync();
        Assert.Equal(JobState.Failed, job.State);
        Assert.Contains("no luck at " + step, job.Error!.Detail, StringComparison.Ordinal);
        await OnlyHereAsync();

        At("", _ => Task.CompletedTask);
        Assert.Equal(JobState.Done, (await MigrateAsync()).State);
        await OnlyThereAsync(VmState.Running);
    }

    [Theory]
    [InlineData("begin")]
    [InlineData("stop")]
    [InlineData("receive")]
    public async Task A_step_that_hangs_is_given_up_by_whoever_cancels(string step)
    {
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        At(step, async cancellation =>
        {
            reached.TrySetResult();
            await Task.Delay(Timeout.Infinite, cancellation);
        });
        JobInfo job = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        Assert.Equal(VmState.Migrating, (await _here.Client.ShowAsync("web1", s_none)).State);
        await _here.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await _here.EndAsync(job)).State);
        await OnlyHereAsync();
    }

    [Fact]
    public async Task A_source_that_dies_while_it_asks_finds_out_that_the_vm_is_there()
    {
        (TaskCompletionSource reached, TaskCompletionSource gate) = Gate("complete");
        _ = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        await _here.StopDaemonAsync();
        Assert.Equal((MoveKind.Outgoing, MoveStep.Asking), (_here.Record().Move!.Kind, _here.Record().Move!.Step));
        gate.SetResult();
        await _here.StartDaemonAsync();
        await OnlyThereAsync(VmState.Running);
    }

    [Fact]
    public async Task A_source_whose_worker_died_while_it_asks_does_not_start_the_vm_again()
    {
        (TaskCompletionSource reached, TaskCompletionSource gate) = Gate("complete");
        _ = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        await _here.StopDaemonAsync();
        Source.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
        int launches = _here.Workers.Launches;
        await _here.StartDaemonAsync();
        gate.SetResult();
        await OnlyThereAsync(VmState.Running);
        Assert.Equal(launches, _here.Workers.Launches);
    }

    [Fact]
    public async Task A_target_that_dies_before_it_has_decided_never_runs_the_vm_and_the_source_goes_on()
    {
        (TaskCompletionSource reached, TaskCompletionSource gate) = Gate("complete");
        JobInfo job = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        string id = _here.Record().Move!.Id;
        Task stopping = _there.StopDaemonAsync();
        gate.SetException(new WorkerException("worker-died", "it is gone"));
        await stopping;
        await _there.StartDaemonAsync();
        job = await _here.EndAsync(job);
        Assert.Equal((JobState.Failed, "move-failed"), (job.State, job.Error?.Code));
        await OnlyHereAsync();
        using MigrationPeer peer = Peer();
        Assert.Equal(MigrationState.Aborted, (await peer.CommitAsync(id, s_none)).State); // also when it is asked late
    }

    [Theory]
    [InlineData(Decision.Committed)]
    [InlineData(null)]
    public async Task A_target_that_finds_a_vm_that_was_to_come_goes_by_what_was_decided(Decision? decision)
    {
        await _there.CreateAsync("web2", "");
        await _there.Client.DoAsync("web2", "start", s_none);
        await _there.StopDaemonAsync();
        string id = Guid.NewGuid().ToString("N");
        _there.LeaveRecord(record => record with
        {
            WantedOn = false,
            Move = new MoveRecord(id, MoveKind.Incoming, MoveStep.Begun, WasPaused: false),
        });
        if (decision is { } decided)
        {
            using VmInventory inventory = VmInventory.Open(Path.Combine(_there.Options.StateFolder, "inventory.db"));
            Assert.Equal(decided, inventory.Decisions.Decide(id, decided));
            Assert.Equal(decided, inventory.Decisions.Decide(id, Decision.Aborted)); // the first word stands
        }

        await _there.StartDaemonAsync();
        using MigrationPeer peer = Peer();
        if (decision is null)
        {
            Assert.Empty((await _there.Client.ListAsync(s_none)).Vms);
            await DaemonFixture.UntilAsync(() => _there.Workers.Alive.IsEmpty);
            Assert.Equal(MigrationState.Aborted, (await peer.CommitAsync(id, s_none)).State);
            return;
        }

        Assert.Equal(VmState.Running, await _there.StateSoonAsync("web2", VmState.Running));
        Assert.Equal((null, true), (_there.Record().Move, _there.Record().WantedOn));
        Assert.Equal(MigrationState.Committed, (await peer.AbortAsync(id, s_none)).State);
    }

    [Fact]
    public async Task A_source_that_was_cut_off_before_it_asked_goes_on()
    {
        await _here.StopDaemonAsync();
        _here.LeaveRecord(record => record with
        {
            Move = MoveRecord.Begin(MoveKind.Outgoing, wasPaused: false) with { Peer = There },
        });
        await _here.StartDaemonAsync();
        await OnlyHereAsync();
        Assert.Contains("cancel", Source.Moving.Calls);
    }

    [Fact]
    public async Task A_source_that_cannot_ask_lets_nobody_start_or_delete_the_vm()
    {
        await _here.StopDaemonAsync();
        Source.End(new WorkerExit(ExitReason.WorkerDied, 1, "killed"));
        await _there.StopDaemonAsync();
        _here.LeaveRecord(record => record with
        {
            WantedOn = false,
            LastExit = new WorkerExit(ExitReason.Failed, 1, "killed"),
            Move = MoveRecord.Begin(MoveKind.Outgoing, wasPaused: false) with { Peer = There, Step = MoveStep.Asking },
        });
        await _here.StartDaemonAsync();
        foreach (Func<Task> request in (Func<Task>[])
            [() => _here.Client.DoAsync("web1", "start", s_none), () => _here.Client.DeleteAsync("web1", s_none)])
        {
            Assert.Contains((await DaemonFixture.RefusedAsync(request)).Code, (string[])["move-unsettled", "vm-busy"]);
        }

        // The other host knows nothing of it, so it never will take it.
        await _there.StartDaemonAsync();
        await DaemonFixture.UntilAsync(() => _here.Record().Move is null);
    }

    [Theory]
    [InlineData(SettleRequest.Here)]
    [InlineData(SettleRequest.There)]
    public async Task Somebody_can_say_where_a_vm_is_that_was_handed_over_to_a_lost_host(string where)
    {
        SettleRequest word = new(where, "web1");
        Assert.Equal("move-settled", (await DaemonFixture.RefusedAsync(() => _here.Client.SettleAsync("web1", word, s_none))).Code);
        FakeWorker source = Source;
        await _here.StopDaemonAsync();
        await _there.StopDaemonAsync();
        _here.LeaveRecord(record => record with
        {
            Move = MoveRecord.Begin(MoveKind.Outgoing, wasPaused: false) with { Peer = There, Step = MoveStep.Asking },
        });
        await _here.StartDaemonAsync();
        Assert.Equal(VmState.Migrating, await _here.StateSoonAsync("web1", VmState.Migrating));
        Assert.Equal(
            "move-unsettled", (await DaemonFixture.RefusedAsync(() => _here.Client.DoAsync("web1", "stop", s_none))).Code);
        Assert.Equal("not-confirmed", (await DaemonFixture.RefusedAsync(
            () => _here.Client.SettleAsync("web1", word with { Confirm = "web" }, s_none))).Code);
        await _here.Client.SettleAsync("web1", word, s_none);
        if (where is SettleRequest.Here)
        {
            Assert.Equal(VmState.Running, await _here.StateSoonAsync("web1", VmState.Running));
            await DaemonFixture.UntilAsync(() => _here.Record().Move is null);
            Assert.False(source.Ended.IsCompleted);
        }
        else
        {
            await DaemonFixture.UntilAsync(async () => (await _here.Client.ListAsync(s_none)).Vms.Count == 0);
            Assert.True(source.Ended.IsCompleted);
        }
    }

    [Fact]
    public async Task A_stop_that_comes_before_the_other_host_is_asked_ends_the_vm_on_both()
    {
        // The stop is let through at the last moment at which the sender looks whether there is one.
        (TaskCompletionSource reached, TaskCompletionSource gate) = Gate("receive");
        JobInfo job = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        Task stopping = _here.Client.DoAsync("web1", "stop", s_none);
        gate.SetResult();
        await stopping;
        Assert.Equal(JobState.Failed, (await _here.EndAsync(job)).State);
        Assert.Equal(VmState.Stopped, await _here.StateSoonAsync("web1", VmState.Stopped));
        await DaemonFixture.UntilAsync(() => _there.Workers.Alive.IsEmpty);
        Assert.Empty((await _there.Client.ListAsync(s_none)).Vms);
        Assert.Null(_here.Record().Move);
    }

    [Fact]
    public async Task What_is_not_known_is_given_up_for_good()
    {
        using MigrationPeer peer = Peer();
        string id = Guid.NewGuid().ToString("N"), other = Guid.NewGuid().ToString("N");
        Assert.Equal(MigrationState.Aborted, (await peer.AbortAsync(id, s_none)).State);
        Assert.Equal(MigrationState.Aborted, (await peer.CommitAsync(id, s_none)).State);
        Assert.Equal(MigrationState.Aborted, (await peer.CommitAsync(other, s_none)).State);
        MigrationOffer late = new(id, Guid.NewGuid().ToString(), "web9", _here.Yaml("web9"), _here.Folder,
            Spec.VmSpecJson.Write(Spec.SpecReader.Read(_here.Yaml("web9"), "spec", _here.Folder)).GetRawText(), [], 1, 60);
        Assert.Equal("migration-known", (await Assert.ThrowsAsync<PeerException>(() => peer.OfferAsync(late, s_none))).Code);
        Assert.Equal(MigrationState.Receiving,
            (await peer.OfferAsync(late with { Id = Guid.NewGuid().ToString("N") }, s_none)).State);
        foreach (MigrationOffer lie in (MigrationOffer[])
            [late with { Id = "../x" }, late with { Vm = "x" }, late with { Channels = 17 }, late with { Name = "other" },
                late with { Current = "{" }, late with { Files = ["top 1 1 /etc/shadow"] }, late with { TimeoutSeconds = 0 },
                late with { Cpu = "{}" }])
        {
            MigrationOffer asked = lie.Id.StartsWith('.') ? lie : lie with { Id = Guid.NewGuid().ToString("N") };
            Assert.Equal("migration-refused", (await Assert.ThrowsAsync<PeerException>(() => peer.OfferAsync(asked, s_none))).Code);
        }

        await Assert.ThrowsAsync<PeerException>(() => peer.StatusAsync(Guid.NewGuid().ToString("N"), s_none));
    }

    [Fact]
    public async Task A_vm_that_comes_can_be_neither_started_nor_deleted_and_its_name_is_taken()
    {
        (TaskCompletionSource reached, TaskCompletionSource gate) = Gate("complete");
        JobInfo job = await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none);
        await reached.Task.WaitAsync(ResourceOracle.Deadline);
        Assert.Equal(VmState.Migrating, (await _there.Client.ShowAsync("web1", s_none)).State);
        foreach (Func<Task> request in (Func<Task>[])
            [() => _there.Client.DoAsync("web1", "start", s_none), () => _there.Client.DeleteAsync("web1", s_none),
                () => _there.Client.DoAsync("web1", "stop", s_none), () => _here.Client.DoAsync("web1", "resume", s_none)])
        {
            Assert.Equal(409, (await DaemonFixture.RefusedAsync(request)).Status);
        }

        gate.SetResult();
        Assert.Equal(JobState.Done, (await _here.EndAsync(job)).State);
        await OnlyThereAsync(VmState.Running);
    }

    [Fact]
    public async Task What_is_in_the_way_is_named_before_anything_is_sent()
    {
        await _there.CreateAsync("web1");
        JobInfo taken = await MigrateAsync();
        Assert.Equal("name-taken", taken.Error?.Code);
        await _there.Client.DeleteAsync("web1", s_none);
        await _here.CreateAsync("web3", "vsock: {path: v.sock}\n");
        await _here.Client.DoAsync("web3", "start", s_none);
        JobInfo vsock = await _here.EndAsync(await _here.Client.MigrateAsync("web3", new MigrateRequest(There), s_none));
        Assert.Equal("move-impossible", vsock.Error?.Code);
        Assert.Contains("vsock", vsock.Error!.Detail, StringComparison.Ordinal);
        foreach (string to in (string[])["http://127.0.0.1:1", "https://a:1/x", "nonsense", "https://u@a:1"])
        {
            Assert.Equal("migration-refused", (await DaemonFixture.RefusedAsync(
                () => _here.Client.MigrateAsync("web1", new MigrateRequest(to), s_none))).Code);
        }

        Assert.Equal(VmState.Running, (await _here.Client.ShowAsync("web1", s_none)).State);
        Assert.Empty(_there.Workers.Alive);
        await using DaemonFixture alone = await DaemonFixture.StartAsync();
        await alone.CreateAsync("web1");
        Assert.Equal("peers-unset", (await DaemonFixture.RefusedAsync(
            () => alone.Client.MigrateAsync("web1", new MigrateRequest(There), s_none))).Code);
    }

    [Fact]
    public async Task A_disk_that_is_another_file_there_is_refused()
    {
        string path = Path.Combine(_here.Folder, "d.img");
        await File.WriteAllBytesAsync(path, new byte[1 << 20]);
        await _here.CreateAsync("web4", "disks: [{path: d.img}]\n");
        await _here.Client.DoAsync("web4", "start", s_none);
        JobInfo job = await _here.EndAsync(await _here.Client.MigrateAsync("web4", new MigrateRequest(There), s_none));
        Assert.Equal("migration-refused", job.Error?.Code);
        Assert.Contains("has no lock here", job.Error!.Detail, StringComparison.Ordinal); // a fake worker takes none
    }

    [Theory]
    [InlineData("viewer", "forbidden")]
    [InlineData("unknown", "unauthenticated")]
    [InlineData("forged", "peer-unreachable")]
    public async Task A_stranger_gets_nowhere(string who, string expected)
    {
        using Authority others = new("others");
        using X509Certificate2 certificate = (who is "forged" ? others : _authority).Client(who);
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder =>
        {
            DaemonOptions options = Options(folder, FreePort(), folder, certificate, Role.Viewer);
            return who is "viewer" ? options : options with { Certificates = [] };
        });
        using MigrationPeer peer = new(
            new Uri($"https://127.0.0.1:{daemon.Options.Listen!.Port}"), PeersOf(daemon.Folder, certificate));
        string id = Guid.NewGuid().ToString("N");
        Assert.Equal(expected, (await Assert.ThrowsAsync<PeerException>(() => peer.AbortAsync(id, s_none))).Code);
        Assert.Equal(expected, (await Assert.ThrowsAsync<PeerException>(() => peer.ChannelAsync(id, 0, s_none))).Code);
    }

    [Fact]
    public async Task A_server_of_another_authority_is_not_talked_to()
    {
        using Authority others = new("others");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(
            folder => others.Options(folder) with { Listen = new IPEndPoint(IPAddress.Loopback, FreePort()) });
        using MigrationPeer peer = new(new Uri($"https://127.0.0.1:{daemon.Options.Listen!.Port}"), PeersOf(_here.Folder, _peer));
        PeerException refused = await Assert.ThrowsAsync<PeerException>(() => peer.AbortAsync(Guid.NewGuid().ToString("N"), s_none));
        Assert.Equal("peer-unreachable", refused.Code);
    }

    [Theory]
    [InlineData("peers: {certificate: /a, key: /b, ca: /c}", true)]
    [InlineData("peers: {certificate: /a, key: /b}", false)]
    [InlineData("peers: {certificate: /a, key: /b, ca: /c, more: /d}", false)]
    [InlineData("peers: [a, b, c]", false)]
    [InlineData("peers: {certificate: '', key: /b, ca: /c}", false)]
    public void Peers_are_three_files(string yaml, bool isSound)
    {
        DaemonOptions? options = DaemonConfig.Apply(new DaemonOptions(), "vmmd.yaml", yaml, out string problem);
        Assert.Equal(isSound ? new PeerOptions("/a", "/b", "/c") : null, options?.Peers);
        Assert.Equal(isSound, problem.Length == 0);
    }

    private static int FreePort()
    {
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private DaemonOptions Options(string folder, int port, string shared, X509Certificate2 known, Role role) =>
        _authority.Options(folder, (role.ToString(), role, known)) with
        {
            Listen = new IPEndPoint(IPAddress.Loopback, port),
            Peers = PeersOf(folder, known),
            Storage = [.. new[] { folder, shared }.Distinct()],
        };

    private static PeerOptions PeersOf(string folder, X509Certificate2 certificate)
    {
        string file = Path.Combine(folder, "peer.pem"), key = Path.Combine(folder, "peer.key");
        File.WriteAllText(file, certificate.ExportCertificatePem());
        File.WriteAllText(key, certificate.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem());
        return new PeerOptions(file, key, Path.Combine(folder, "ca.pem"));
    }

    private MigrationPeer Peer() => new(new Uri(There), PeersOf(_here.Folder, _peer));

    private async Task<JobInfo> MigrateAsync() =>
        await _here.EndAsync(await _here.Client.MigrateAsync("web1", new MigrateRequest(There), s_none));

    private void At(string step, Func<CancellationToken, Task> happens)
    {
        Source.Moving.Before = (call, cancellation) => call == step ? happens(cancellation) : Task.CompletedTask;
        _there.Workers.Incoming = (call, cancellation) =>
            (call is "status" ? "incoming-status" : call) == step ? happens(cancellation) : Task.CompletedTask;
    }

    private (TaskCompletionSource Reached, TaskCompletionSource Gate) Gate(string step)
    {
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously),
            gate = new(TaskCreationOptions.RunContinuationsAsynchronously);
        At(step, _ =>
        {
            reached.TrySetResult();
            return gate.Task;
        });
        return (reached, gate);
    }

    private async Task OnlyHereAsync()
    {
        Assert.Equal(VmState.Running, await _here.StateSoonAsync("web1", VmState.Running));
        await DaemonFixture.UntilAsync(() => _here.Record().Move is null);
        Assert.Equal(VmState.Running, Source.State);
        await DaemonFixture.UntilAsync(() => _there.Workers.Alive.IsEmpty);
        for (int i = 0; i < 1000 && (await _there.Client.ListAsync(s_none)).Vms.Count > 0; i++)
        {
            await Task.Delay(10); // the other host finds out by itself
        }

        Assert.Empty((await _there.Client.ListAsync(s_none)).Vms);
        Assert.All(_there.Workers.Received, incoming => Assert.True(incoming.IsDisposed));
    }

    private async Task OnlyThereAsync(VmState state)
    {
        for (int i = 0; i < 1000 && (await _here.Client.ListAsync(s_none)).Vms.Count > 0; i++)
        {
            await Task.Delay(10);
        }

        Assert.Empty((await _here.Client.ListAsync(s_none)).Vms);
        Assert.Empty(_here.Workers.Alive);
        Assert.Equal(state, await _there.StateSoonAsync("web1", state));
        Assert.Equal(state, _there.Workers.Alive.Values.Single().State);
    }
}
