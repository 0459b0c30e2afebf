using System.Diagnostics;
using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Real workers with micro-guests, driven through the launcher.</summary>
[Trait("Tier", "kvm")]
public sealed class WorkerTests
{
    [KvmFact]
    public async Task A_guest_speaks_on_its_console_and_its_exit_code_arrives()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("hello"));
        Assert.Equal(VmState.Starting, worker.State);
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        Assert.Contains("HELLO", await ReadUntilAsync(console, "LO"), StringComparison.Ordinal);
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await worker.Ended.WaitAsync(Soon));
        Assert.Equal(VmState.Stopped, worker.State);
    }

    [KvmFact]
    public async Task A_crash_arrives_with_what_the_vcpus_looked_like()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("crash"));
        await worker.StartAsync(Soon);
        WorkerExit exit = await worker.Ended.WaitAsync(Soon);
        Assert.Equal(ExitReason.TripleFault, exit.Reason);
        Assert.Equal("vCPU 0, which crashed:", exit.Report![0]);
        Assert.Contains(exit.Report, line => line.Contains("out 0x3f8 0x47", StringComparison.Ordinal));
    }

    [KvmFact]
    public async Task Consoles_that_come_later_get_what_was_said_and_each_gets_everything()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await using Stream first = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(first, "READY");
        await using Stream second = await worker.OpenConsoleAsync(Soon);
        await ReadUntilAsync(second, "READY");
    }

    [KvmFact]
    public async Task A_paused_guest_stands_still_and_goes_on_where_it_was()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("spin", "every=20000000 ticks=0"));
        List<VmState> seen = [];
        using IDisposable watch = worker.OnStateChanged(state =>
        {
            lock (seen)
            {
                seen.Add(state);
            }
        });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "TICK");
        await worker.PauseAsync(Soon);
        Assert.Equal(VmState.Paused, worker.State);
        long exits = (await worker.GetStatsAsync(Soon)).Exits;
        await Task.Delay(200);
        Assert.Equal(exits, (await worker.GetStatsAsync(Soon)).Exits);
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => worker.PauseAsync(Soon));
        Assert.Equal("wrong-state", refused.Code);
        await worker.ResumeAsync(Soon);
        string said = await ReadUntilAsync(console, "TICK");
        said += await ReadUntilAsync(console, "TICK");
        Assert.DoesNotContain("CORRUPT", said, StringComparison.Ordinal);
        WorkerStats stats = await worker.GetStatsAsync(Soon);
        Assert.True(stats.Exits > exits && stats.ResidentBytes > 1 << 20, stats.ToString());
        await worker.PressPowerButtonAsync(Soon);
        await worker.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await worker.Ended).Reason);
        Assert.Equal([VmState.Running, VmState.Paused, VmState.Running, VmState.Stopped], seen);
    }

    [KvmFact]
    public async Task A_worker_that_is_killed_is_reported_and_the_other_does_not_notice()
    {
        await using WorkerFixture fixture = new();
        IWorker victim = await fixture.LaunchAsync(SpecOf("idle"));
        IWorker other = await fixture.LaunchAsync(SpecOf("idle"));
        await victim.StartAsync(Soon);
        await other.StartAsync(Soon);
        using (Process process = Process.GetProcessById(victim.ProcessId))
        {
            process.Kill();
        }

        WorkerExit exit = await victim.Ended.WaitAsync(Soon);
        Assert.Equal(ExitReason.WorkerDied, exit.Reason);
        Assert.Contains("signal 9", exit.Message, StringComparison.Ordinal);
        Assert.Equal("worker-died", (await Assert.ThrowsAsync<WorkerException>(() => victim.PauseAsync(Soon))).Code);
        await other.PauseAsync(Soon);
        Assert.Equal(VmState.Paused, other.State);
    }

    [KvmFact]
    public async Task A_new_daemon_adopts_running_workers_and_learns_why_others_ended()
    {
        await using WorkerFixture fixture = new();
        IWorker idle = await fixture.LaunchAsync(SpecOf("idle"));
        // Long enough that it is still at it when this daemon goes.
        IWorker spin = await fixture.LaunchAsync(SpecOf("spin", "every=4000000000 ticks=1"));
        (string idleId, string spinId, int pid) = (idle.VmId, spin.VmId, idle.ProcessId);
        int spinPid = spin.ProcessId;
        await idle.StartAsync(Soon);
        await idle.PauseAsync(Soon);
        await spin.StartAsync(Soon);
        await idle.DisposeAsync();
        await spin.DisposeAsync();
        CancellationToken limit = Soon;
        while (Alive(spinPid))
        {
            await Task.Delay(20, limit);
        }

        IReadOnlyList<IWorker> adopted = await fixture.RestartDaemonAsync();
        IWorker again = Assert.Single(adopted, w => string.Equals(w.VmId, idleId, StringComparison.Ordinal));
        Assert.Equal((pid, VmState.Paused), (again.ProcessId, again.State));
        await again.ResumeAsync(Soon);
        Assert.Equal(VmState.Running, again.State);
        IWorker over = Assert.Single(adopted, w => string.Equals(w.VmId, spinId, StringComparison.Ordinal));
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await over.Ended);
        await again.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await again.Ended).Reason);
    }

    [KvmFact]
    public async Task What_cannot_be_opened_or_booted_is_said_and_nothing_stays()
    {
        await using WorkerFixture fixture = new();
        string text = Path.GetTempFileName();
        try
        {
            File.WriteAllText(text, "this is no kernel");
            async Task<WorkerException> Refuse(VmSpec spec) => await Assert.ThrowsAsync<WorkerException>(() => fixture.LaunchAsync(spec));
            WorkerException error = await Refuse(SpecOf("hello") with { Boot = new BootSpec { Kernel = text } });
            Assert.Equal("kernel-invalid", error.Code);
            Assert.Contains(text, error.Message, StringComparison.Ordinal);
            Assert.Equal("kernel-open-failed", (await Refuse(SpecOf("no-such-guest"))).Code);
            Assert.Equal(
                "disk-open-failed", (await Refuse(SpecOf("hello") with { Disks = [new DiskSpec { Path = "/nonexistent" }] })).Code);
            Assert.Empty(Directory.GetFiles(fixture.Folder));
        }
        finally
        {
            File.Delete(text);
        }
    }

    [KvmFact]
    public async Task A_disk_works_over_passed_descriptors_and_stays_locked_while_its_worker_lives()
    {
        await using WorkerFixture fixture = new();
        string disk = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(disk))
            {
                file.SetLength(32 << 20);
            }

            VmSpec spec = SpecOf("blk") with { Disks = [new DiskSpec { Path = disk }] };
            IWorker worker = await fixture.LaunchAsync(spec);
            Assert.Equal("disk-in-use", (await Assert.ThrowsAsync<WorkerException>(() => fixture.LaunchAsync(spec))).Code);
            await using Stream console = await worker.OpenConsoleAsync(Soon);
            await worker.StartAsync(Soon);
            Assert.Contains("verify=ok", await ReadUntilAsync(console, "RESULT blk verify=ok"), StringComparison.Ordinal);
            Assert.Equal(ExitReason.DebugExit, (await worker.Ended.WaitAsync(Soon)).Reason);
            IWorker next = await fixture.LaunchAsync(spec);
            Assert.Equal(VmState.Starting, next.State);
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact]
    public async Task The_pool_keeps_workers_ready_and_is_filled_again()
    {
        await using WorkerFixture fixture = new(pool: 2);
        await FullAsync(fixture, 2);

        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "READY");
        await FullAsync(fixture, 2);
    }

    [KvmFact]
    public async Task Memory_of_a_vnode_is_changed_while_the_guest_runs()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("mem") with { MaxMemory = ByteSize.MiB(128), Balloon = null });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "NOW mib=0");
        VmMemory asked = await worker.MemoryAsync(new MemoryWish(0, 96 << 20), Soon);
        Assert.Equal(96UL << 20, asked.Vnodes.Single().AskedBytes);
        await ReadUntilAsync(console, "NOW mib=32");
        VmMemory grown = await worker.MemoryAsync(null, Soon);
        Assert.True(grown.Settled);
        Assert.Equal(new VnodeMemoryInfo(0, 64 << 20, 128 << 20, 96 << 20, 96 << 20, 0, true), grown.Vnodes.Single());
        foreach (MemoryWish wish in new[]
        {
            new MemoryWish(0, 95UL << 20), new MemoryWish(1, 96UL << 20), new MemoryWish(0, 130UL << 20), new MemoryWish(0, 0),
            new MemoryWish(BalloonBytes: 1)
        })
        {
            Assert.Contains(
                (await Assert.ThrowsAsync<WorkerException>(() => worker.MemoryAsync(wish, Soon))).Code,
                (string[])["memory-impossible", "no-balloon"]);
        }
    }

    [KvmFact]
    public async Task A_size_below_the_start_is_the_balloons_work_and_not_both_are_given()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(
            SpecOf("balloon", "mib=8 base=33554432") with { Memory = ByteSize.MiB(64), MaxMemory = null, Balloon = new BalloonSpec() });
        await worker.StartAsync(Soon);
        VmMemory asked = await worker.MemoryAsync(new MemoryWish(0, 48 << 20), Soon);
        Assert.Equal(
            (48UL << 20, 64UL << 20, 16UL << 20, 16UL << 20),
            (asked.Vnodes[0].AskedBytes, asked.Vnodes[0].PresentBytes, asked.Vnodes[0].StuckBytes, asked.Vnodes[0].BelowBytes));
        Assert.Equal((16UL << 20, false), (asked.Balloon!.TargetBytes, asked.Settled));
        Assert.Equal(
            "memory-impossible",
            (await Assert.ThrowsAsync<WorkerException>(() => worker.MemoryAsync(new MemoryWish(0, 32 << 20, 1 << 20), Soon))).Code);
        VmMemory back = await worker.MemoryAsync(new MemoryWish(0, 64 << 20), Soon);
        Assert.Equal((64UL << 20, 0UL, true), (back.Vnodes[0].AskedBytes, back.Balloon!.TargetBytes, back.Settled));
    }

    [KvmFact]
    public async Task A_disk_is_limited_while_the_guest_runs()
    {
        string disk = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(disk, new byte[1 << 20]);
            await using WorkerFixture fixture = new();
            VmSpec spec =
                SpecOf("blk") with
                {
                    Disks = [new DiskSpec
                    {
                        Path = disk,
                        Cache = DiskCache.Buffered,
                        Limits = new LimitsSpec { Operations = 20, OperationsBurst = 40 }
                    }]
                };
            IWorker worker = await fixture.LaunchAsync(spec);
            await worker.StartAsync(Soon);
            await Task.Delay(500);
            long limited = Requests(await worker.GetStatsAsync(Soon));
            Assert.InRange(limited, 30, 200); // 40, then 20 a second; the guest alone makes thousands
            foreach (LimitsBody wrong in new[]
            {
                new LimitsBody("disk1", new DeviceLimits(1)), new LimitsBody("rng", new DeviceLimits(1)),
                new LimitsBody("disk0", new DeviceLimits(ulong.MaxValue))
            })
            {
                Assert.Equal("limits-impossible", (await Assert.ThrowsAsync<WorkerException>(() => worker.LimitAsync(wrong, Soon))).Code);
            }

            await worker.LimitAsync(new LimitsBody("disk0", new DeviceLimits()), Soon);
            Assert.Equal(ExitReason.DebugExit, (await worker.Ended.WaitAsync(Soon)).Reason);
        }
        finally
        {
            File.Delete(disk);
        }

        static long Requests(WorkerStats stats) => stats.Disks.Single() is var d ? d.ReadRequests + d.WriteRequests : 0;
    }

    [KvmFact]
    public async Task A_worker_is_prepared_once_and_has_no_VM_by_it()
    {
        await using WorkerFixture fixture = new();
        RemoteWorker worker = fixture.Launcher.Processes.Spawn();
        try
        {
            await worker.PrepareAsync(Soon);
            WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => worker.PrepareAsync(Soon));
            Assert.Equal("wrong-state", refused.Code);
            HelloBody hello = await worker.HelloAsync(Soon);
            Assert.Equal(VmState.Defined, hello.State); // the empty VM is nobody's VM
            Assert.Null(hello.VmId);
        }
        finally
        {
            worker.Kill();
            await worker.Ended.WaitAsync(Soon);
            await worker.DisposeAsync();
        }
    }

    [KvmFact(NeedsRoot = true)]
    public async Task A_worker_has_a_user_of_its_own_and_nothing_to_gain_and_its_disk_still_works()
    {
        await using WorkerFixture fixture = new(firstUser: 64_000);
        string disk = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(disk))
            {
                file.SetLength(32 << 20);
            }

            IWorker other = await fixture.LaunchAsync(SpecOf("idle"));
            IWorker worker = await fixture.LaunchAsync(SpecOf("blk") with { Disks = [new DiskSpec { Path = disk }] });
            Assert.Equal(64_000, Number(other, "Uid"));
            foreach (string thread in Directory.GetDirectories($"/proc/{worker.ProcessId}/task"))
            {
                Dictionary<string, string> status = Status(thread);
                Assert.Equal("64001\t64001\t64001\t64001", status["Uid"]);
                Assert.Equal("64001\t64001\t64001\t64001", status["Gid"]);
                Assert.Equal("", status["Groups"]);
                Assert.Equal("0000000000000000", status["CapEff"]);
                Assert.Equal("0000000000000000", status["CapPrm"]);
                Assert.Equal("1", status["NoNewPrivs"]);
            }

            string core = File.ReadLines($"/proc/{worker.ProcessId}/limits")
                .Single(l => l.StartsWith("Max core file size", StringComparison.Ordinal));
            Assert.Equal(["0", "0"], core.Split(' ', StringSplitOptions.RemoveEmptyEntries)[4..6]);
            await using Stream console = await worker.OpenConsoleAsync(Soon);
            await worker.StartAsync(Soon);
            await ReadUntilAsync(console, "RESULT blk verify=ok");
            await worker.Ended.WaitAsync(Soon);
            IWorker next = await fixture.LaunchAsync(SpecOf("idle")); // the freed uid is used again
            Assert.Equal(64_001, Number(next, "Uid"));
            await other.DisposeAsync();
            IWorker again = Assert.Single(
                await fixture.RestartDaemonAsync(), w => string.Equals(w.VmId, other.VmId, StringComparison.Ordinal));
            Assert.Equal(other.ProcessId, again.ProcessId);
            IWorker third = await fixture.LaunchAsync(SpecOf("idle")); // adopted workers keep theirs
            Assert.Equal(64_002, Number(third, "Uid"));
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact(NeedsRoot = true)]
    public async Task A_worker_with_a_VM_sees_no_files_and_each_thread_is_filtered()
    {
        await using WorkerFixture fixture = new(firstUser: 64_100);
        string disk = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(disk))
            {
                file.SetLength(32 << 20);
            }

            IWorker worker = await fixture.LaunchAsync(SpecOf("blk", "poll=1") with { Disks = [new DiskSpec { Path = disk }] });
            Assert.Equal(
                ["no-new-privileges", "no-core-dump", "namespaces", "empty-root", "own-user", "seccomp"], worker.Confinement!.Applied);
            Assert.StartsWith("cgroup", Assert.Single(worker.Confinement.Missing), StringComparison.Ordinal);
            string own = $"/proc/{worker.ProcessId}";
            Assert.Empty(Directory.GetFileSystemEntries($"{own}/root/"));
            foreach (string space in (string[])["mnt", "net", "ipc", "uts"])
            {
                Assert.NotEqual(new FileInfo($"/proc/self/ns/{space}").LinkTarget, new FileInfo($"{own}/ns/{space}").LinkTarget);
            }

            await using Stream console = await worker.OpenConsoleAsync(Soon);
            await worker.StartAsync(Soon);
            await ReadUntilAsync(console, "RESULT blk verify=ok");
        }
        finally
        {
            File.Delete(disk);
        }

        IWorker idle = await fixture.LaunchAsync(SpecOf("idle"));
        await using (Stream console = await idle.OpenConsoleAsync(Soon))
        {
            await idle.StartAsync(Soon);
            await ReadUntilAsync(console, "READY");
            // Names of threads are no help here: the runtime gives them through /proc. The process has two filters, of which one is not
            // logged; a vCPU a third; four would be an I/O thread under a vCPU's.
            Dictionary<string, int> filters = [];
            foreach (string thread in Directory.GetDirectories($"/proc/{idle.ProcessId}/task"))
            {
                Dictionary<string, string> status = Status(thread);
                Assert.Equal("2", status["Seccomp"]);
                filters.Add(Path.GetFileName(thread), int.Parse(status["Seccomp_filters"], CultureInfo.InvariantCulture));
                Assert.Empty(Directory.GetFileSystemEntries($"{thread}/root/"));
            }

            Assert.Equal(2, filters[$"{idle.ProcessId}"]);
            Assert.Contains(3, filters.Values);
            Assert.All(filters.Values, count => Assert.InRange(count, 2, 3));
            await idle.StopAsync(Soon);
        }

        Assert.Equal(ExitReason.Stopped, (await idle.Ended).Reason);
    }

    [KvmFact(NeedsRoot = true)]
    public async Task A_worker_is_in_a_cgroup_with_limits_that_goes_with_it()
    {
        const string Root = "/sys/fs/cgroup";
        await using WorkerFixture fixture = new(firstUser: 64_200, change: options => options with { CgroupRoot = Root });
        IWorker worker = await fixture.LaunchAsync(SpecOf("idle"));
        Assert.Contains("cgroup", worker.Confinement!.Applied);
        string name = File.ReadLines($"/proc/{worker.ProcessId}/cgroup")
            .Select(l => l[(l.LastIndexOf('/') + 1)..])
            .First(n => Guid.TryParse(n, out _));
        string[] groups = Groups(Root, name);
        Assert.NotEmpty(groups);
        foreach (string group in groups)
        {
            Assert.Equal($"{worker.ProcessId}", File.ReadAllText(Path.Combine(group, "cgroup.procs")).Trim());
        }

        string limit = groups.Select(g => Path.Combine(g, "memory.limit_in_bytes"))
            .Concat(groups.Select(g => Path.Combine(g, "memory.max")))
            .First(File.Exists);
        Assert.Equal((64L << 20) + (2L << 20) + (256L << 20), long.Parse(File.ReadAllText(limit), CultureInfo.InvariantCulture));
        await worker.StartAsync(Soon);
        await worker.StopAsync(Soon);
        await worker.Ended.WaitAsync(Soon);
        Assert.Empty(Groups(Root, name));
        string left = Path.Combine(groups[0][..^name.Length], Guid.NewGuid().ToString()); // as of a worker that died without a daemon
        Directory.CreateDirectory(left);
        await fixture.RestartDaemonAsync();
        Assert.False(Directory.Exists(left));
    }

    private static string[] Groups(string root, string id) =>
        [.. ((string[])[$"{root}/memory/vmm/{id}", $"{root}/pids/vmm/{id}", $"{root}/cpu/vmm/{id}", $"{root}/vmm/{id}"])
            .Where(Directory.Exists)];

    private static int Number(IWorker worker, string field) =>
        int.Parse(Status($"/proc/{worker.ProcessId}")[field].Split('\t')[0], CultureInfo.InvariantCulture);

    private static Dictionary<string, string> Status(string folder) =>
        File.ReadAllLines(Path.Combine(folder, "status")).Select(l => l.Split(':', 2)).ToDictionary(p => p[0], p => p[1].Trim());

    private static async Task FullAsync(WorkerFixture fixture, int ready)
    {
        CancellationToken limit = Soon;
        while (fixture.Launcher.Pool.Ready < ready)
        {
            await Task.Delay(20, limit);
        }
    }
}
