using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Io;
using Vmm.LifeCycle;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Daemon.Tests;

/// <summary>Change logs across starts, daemons and workers. Files and logs are real, the workers are fakes.</summary>
public sealed class ChangeLogTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;
    private int _cuts;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(In("root.img"), new byte[4 << 20]);
        await _daemon.CreateAsync("web1", "disks:\n  - path: root.img\n");
    }

    public async Task DisposeAsync()
    {
        foreach (FakeWorker worker in _daemon.Workers.Alive.Values)
        {
            foreach (ChangeLog log in worker.Logs.Values)
            {
                log.Dispose();
            }
        }

        await _daemon.DisposeAsync();
    }

    private VmChangeLogs Logs => _daemon.Host.Vms.Get("web1").ChangeLogs;

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_log_knows_from_its_first_acknowledged_cut_on_what_was_written(bool wantedWhileItRuns)
    {
        await BeginAsync(wantedWhileItRuns);
        Assert.Equal(["disk0"], Logs.Disks);
        await CutAsync();
        Assert.Equal(ChangeUnknown.New, Reason);
        Logs.Forget("disk0");
        Write(2 << 20);
        await CutAsync();
        Assert.Equal([new ChangeRange(2 << 20, ChangeSet.ExtentBytes)], Pending);
        Write(0);
        await CutAsync(); // the one before was not acknowledged
        Assert.Equal([new ChangeRange(0, ChangeSet.ExtentBytes), new ChangeRange(2 << 20, ChangeSet.ExtentBytes)], Pending);
        Logs.Forget("disk0");
        Assert.Empty(Pending);
    }

    [Theory]
    [InlineData(false, ChangeUnknown.None)]
    [InlineData(true, ChangeUnknown.ChangedOffline)]
    public async Task A_stop_and_a_start_keep_the_log_unless_somebody_wrote_the_disk(bool written, ChangeUnknown expected)
    {
        await KnowAsync();
        Write(1 << 20);
        await StopAsync();
        if (written)
        {
            using FileStream file = new(Top, FileMode.Open);
            int first = file.ReadByte();
            file.Position = 0;
            file.WriteByte((byte)first); // nothing is different but the time
        }

        await _daemon.Client.DoAsync("web1", "start", s_none);
        await CutAsync();
        Assert.Equal(expected, Reason);
        Assert.Equal(written ? Logs.ReadPending("disk0")!.DiskBytes : ChangeSet.ExtentBytes, Pending.Single().Length);
    }

    [Fact]
    public async Task A_daemon_that_comes_later_goes_on_with_the_log_of_a_worker_that_runs()
    {
        await KnowAsync();
        Write(1 << 20);
        await _daemon.RestartAsync();
        await _daemon.StateSoonAsync("web1", VmState.Running);
        Write(3 << 20);
        await CutAsync();
        Assert.Equal([1u << 20, 3u << 20], Pending.Select(range => range.Offset));
    }

    /// <summary>It cannot log, or no longer: a cut that it did not make is no empty one.</summary>
    [Fact]
    public async Task A_worker_without_logs_is_unknown_at_every_cut()
    {
        await KnowAsync();
        await StopAsync();
        _daemon.Workers.RefusesLogs = true;
        await _daemon.Client.DoAsync("web1", "start", s_none);
        for (int i = 0; i < 2; i++)
        {
            await CutAsync();
            Assert.Equal(ChangeUnknown.Stopped, Reason);
            Logs.Forget("disk0");
        }
    }

    [Fact]
    public async Task After_an_upgrade_the_next_worker_logs_and_the_next_cut_is_unknown()
    {
        await KnowAsync();
        FakeWorker before = Worker;
        JobInfo job = await _daemon.EndAsync(await _daemon.Client.UpgradeAsync("web1", new UpgradeRequest(), s_none));
        Assert.Equal(JobState.Done, job.State);
        Assert.NotSame(before, Worker);
        before.Logs["disk0"].Dispose();
        await CutAsync();
        Assert.Equal(ChangeUnknown.Moved, Reason);
        Logs.Forget("disk0");
        Write(0);
        await CutAsync();
        Assert.Equal([new ChangeRange(0, ChangeSet.ExtentBytes)], Pending);
    }

    [Fact]
    public async Task A_cut_of_a_VM_that_is_off_has_what_it_wrote_before_and_its_next_start_knows()
    {
        await KnowAsync();
        Write(1 << 20);
        await StopAsync();
        await CutAsync();
        Assert.Equal([new ChangeRange(1 << 20, ChangeSet.ExtentBytes)], Pending);
        Logs.Forget("disk0");
        await _daemon.Client.DoAsync("web1", "start", s_none);
        Write(0);
        await CutAsync();
        Assert.Equal([new ChangeRange(0, ChangeSet.ExtentBytes)], Pending);
    }

    [Fact]
    public async Task A_damaged_log_begins_anew_and_one_that_is_not_wanted_goes()
    {
        await KnowAsync();
        await StopAsync();
        await _daemon.StopDaemonAsync();
        string file = Directory.GetFiles(_daemon.Options.StateFolder, "disk0.log", SearchOption.AllDirectories)
            .Concat(Directory.GetFiles(_daemon.Options.MachinesFolder, "disk0.log", SearchOption.AllDirectories)).First();
        using (FileStream stream = new(file, FileMode.Open))
        {
            stream.WriteByte(0);
        }

        await _daemon.StartDaemonAsync();
        await _daemon.Client.DoAsync("web1", "start", s_none);
        await CutAsync();
        Assert.Equal(ChangeUnknown.Damaged, Reason);
        await Logs.WantAsync([], s_none);
        Assert.Empty(Worker.Logs);
        Assert.Empty(Logs.Disks);
        Assert.False(File.Exists(file));
        Assert.Null(Logs.ReadPending("disk0"));
    }

    [Fact]
    public async Task A_disk_that_is_missing_has_no_log()
    {
        await _daemon.Client.DoAsync("web1", "start", s_none);
        await Assert.ThrowsAsync<ApiException>(() => Logs.WantAsync(["disk7"], s_none));
        Assert.Empty(Logs.Disks);
        _daemon.Workers.RefusesLogs = true;
        await Assert.ThrowsAsync<ApiException>(() => Logs.WantAsync(["disk0"], s_none));
        Assert.Empty(Logs.Disks);
    }

    private ChangeUnknown Reason => Logs.ReadPending("disk0")!.Reason;

    private List<ChangeRange> Pending => [.. Logs.ReadPending("disk0")!.Ranges];

    private string Top => _cuts == 0 ? In("root.img") : In($"root.c{_cuts}.qcow2");

    private string In(string name) => Path.Combine(_daemon.Folder, name);

    private async Task BeginAsync(bool wantedWhileItRuns)
    {
        if (!wantedWhileItRuns)
        {
            await Logs.WantAsync(["disk0"], s_none);
        }

        await _daemon.Client.DoAsync("web1", "start", s_none);
        await Logs.WantAsync(["disk0"], s_none);
    }

    // A log that knows.
    private async Task KnowAsync()
    {
        await BeginAsync(wantedWhileItRuns: true);
        await CutAsync();
        Logs.Forget("disk0");
    }

    private async Task StopAsync()
    {
        FakeWorker worker = Worker;
        await _daemon.Client.DoAsync("web1", "stop", s_none);
        Assert.Equal(VmState.Stopped, await _daemon.StateSoonAsync("web1", VmState.Stopped));
        foreach (ChangeLog log in worker.Logs.Values)
        {
            log.Dispose();
        }
    }

    private async Task CutAsync()
    {
        _cuts++;
        SnapshotWish wish = new($"c{_cuts}", ["disk0"], [In($"root.c{_cuts}.qcow2")]);
        await _daemon.Host.Vms.Get("web1").Snapshots.TakeAsync(wish, cut: true, s_none);
    }

    private void Write(ulong offset) => LoggedWrite.Do(Worker.Logs["disk0"], offset);
}
