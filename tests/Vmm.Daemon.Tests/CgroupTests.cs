using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>Control groups over folders that look like those of a kernel, v1 and v2; the real ones are in Vmm.Worker.Tests.</summary>
public sealed class CgroupTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("vmm-cg-").FullName;
    private readonly string _group = Guid.NewGuid().ToString();

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void The_first_version_takes_quota_period_and_shares()
    {
        WorkerCgroups groups = First();
        Assert.Null(groups.Join(_group, 4711));
        string cpu = Path.Combine(_root, "cpu", "vmm", _group);
        Assert.Equal("4711", File.ReadAllText(Path.Combine(cpu, "cgroup.procs")));
        Assert.Null(groups.LimitCpu(_group, 4711, new CpuLimits(150, 200)));
        Assert.Equal(
            ("100000", "150000", "2048"), (Text(cpu, "cpu.cfs_period_us"), Text(cpu, "cpu.cfs_quota_us"), Text(cpu, "cpu.shares")));
        Assert.Equal(new CpuLimits(150, 200), groups.CpuLimits(_group));
        Assert.Null(groups.LimitCpu(_group, 4711, new CpuLimits()));
        Assert.Equal(("-1", "1024"), (Text(cpu, "cpu.cfs_quota_us"), Text(cpu, "cpu.shares")));
        Assert.Equal(new CpuLimits(), groups.CpuLimits(_group));
        File.WriteAllText(
            Path.Combine(cpu, "cpu.stat"), "nr_periods 40\nnr_throttled 30\nthrottled_time 2500999999\nnr_bursts 0\nburst_time 0\n");
        Assert.Equal(new CpuThrottling(40, 30, 2500), groups.CpuThrottling(_group));
    }

    [Fact]
    public void The_second_version_takes_a_maximum_and_a_weight()
    {
        WorkerCgroups groups = Second("cpuset cpu io memory pids");
        Assert.Equal("+cpu", Text(_root, "cgroup.subtree_control"));
        Assert.Null(groups.Join(_group, 4711));
        string group = Path.Combine(_root, "vmm", _group);
        Assert.Null(groups.LimitCpu(_group, 4711, new CpuLimits(25)));
        Assert.Equal(("25000 100000", "100"), (Text(group, "cpu.max"), Text(group, "cpu.weight")));
        Assert.Equal(new CpuLimits(25), groups.CpuLimits(_group));
        groups.Unthrottle(_group);
        Assert.Equal("max", Text(group, "cpu.max"));
        Assert.Null(groups.CpuLimits(_group)!.QuotaPercent);
        File.WriteAllText(Path.Combine(group, "cpu.max"), "max 100000\n"); // as the kernel says it
        Assert.Null(groups.CpuLimits(_group)!.QuotaPercent);
        File.WriteAllText(Path.Combine(group, "cpu.stat"), "usage_usec 7\nnr_periods 4\nnr_throttled 3\nthrottled_usec 1999\n");
        Assert.Equal(new CpuThrottling(4, 3, 1), groups.CpuThrottling(_group));
    }

    [Fact]
    public void A_disk_in_memory_counts_as_memory_and_a_kill_for_memory_is_seen()
    {
        string disk = $"/dev/shm/vmm-{Guid.NewGuid():N}.img";
        using (FileStream file = File.Create(disk))
        {
            file.SetLength(900L << 20);
        }

        try
        {
            WorkerCgroups groups = Second("cpu memory pids");
            Assert.Null(groups.Join(_group, 4711));
            string group = Path.Combine(_root, "vmm", _group);
            File.WriteAllText(Path.Combine(group, "memory.max"), "max");
            VmSpec spec = new() { Name = "x", Memory = new ByteSize(64 << 20) };
            Assert.Null(groups.LimitTo(_group, spec));
            long without = long.Parse(Text(group, "memory.max"), CultureInfo.InvariantCulture);
            Assert.Null(groups.LimitTo(_group, spec with { Disks = [new DiskSpec { Path = disk }] }));
            Assert.Equal(without + (900L << 20), long.Parse(Text(group, "memory.max"), CultureInfo.InvariantCulture));
            Assert.Null(groups.AddMemory(_group, 5 << 20));
            Assert.Equal(without + (905L << 20), long.Parse(Text(group, "memory.max"), CultureInfo.InvariantCulture));
            Assert.False(groups.WasOutOfMemory(_group));
            File.WriteAllText(Path.Combine(group, "memory.events"), "low 0\nmax 17\noom 1\noom_kill 0\n");
            Assert.False(groups.WasOutOfMemory(_group));
            File.WriteAllText(Path.Combine(group, "memory.events"), "low 0\nmax 17\noom 1\noom_kill 1\n");
            Assert.True(groups.WasOutOfMemory(_group));
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [Fact]
    public void A_host_without_the_controller_says_so_and_limits_the_rest()
    {
        WorkerCgroups groups = Second("memory pids cpuset");
        Assert.Null(groups.Problem);
        Assert.Null(groups.Join(_group, 4711));
        Assert.Contains("no controller cpu", groups.LimitCpu(_group, 4711, new CpuLimits(25)), StringComparison.Ordinal);
        Assert.Null(groups.CpuLimits(_group));
        Assert.Null(groups.CpuThrottling(_group));
        Assert.Contains("needs root", new WorkerCgroups(null).LimitCpu(_group, 4711, new CpuLimits(25)), StringComparison.Ordinal);
    }

    [Fact]
    public void A_worker_of_a_daemon_that_knew_no_cpu_controller_is_put_into_its_group()
    {
        WorkerCgroups groups = First();
        Assert.Null(groups.CpuLimits(_group));
        Assert.Null(groups.LimitCpu(_group, 4711, new CpuLimits(25)));
        Assert.Equal("4711", Text(Path.Combine(_root, "cpu", "vmm", _group), "cgroup.procs"));
    }

    [Fact]
    public void What_is_written_is_read_again()
    {
        WorkerCgroups[] both = [First(), Second("cpu memory pids", "second")];
        foreach (WorkerCgroups groups in both)
        {
            Assert.Null(groups.Join(_group, 1));
            Prop.ForAll(Gen.Choose(0, 100_000).SelectMany(q => Gen.Choose(1, 10_000).Select(w => (q, w))).ToArbitrary(), input =>
            {
                CpuLimits limits = new(input.q == 0 ? null : input.q, input.w == 100 ? null : input.w);
                return groups.LimitCpu(_group, 1, limits) is null && limits.Equals(groups.CpuLimits(_group));
            }).QuickCheckThrowOnFailure();
        }
    }

    private static string Text(string folder, string file) => File.ReadAllText(Path.Combine(folder, file));

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Huge_pages_are_limited_to_those_of_the_vm_and_of_other_sizes_to_none(bool second)
    {
        Directory.CreateDirectory(Path.Combine(_root, "hugetlb"));
        WorkerCgroups groups = second ? Second("cpu memory pids hugetlb") : First();
        Assert.Null(groups.Join(_group, 4711));
        string group = second ? Path.Combine(_root, "vmm", _group) : Path.Combine(_root, "hugetlb", "vmm", _group),
            file = second ? "max" : "limit_in_bytes";
        Assert.Equal("4711", Text(group, "cgroup.procs"));
        foreach (string size in new[] { "2MB", "2MB.rsvd", "1GB" })
        {
            File.WriteAllText(Path.Combine(group, $"hugetlb.{size}.{file}"), "max\n"); // the kernel makes these
        }

        VmSpec spec =
            new()
            {
                Numa =
                    new NumaSpec
                    {
                        Vnodes =
                        [
                            new VnodeSpec
                            {
                                Cpus = [0],
                                Memory = ByteSize.MiB(64),
                                PageSize = ByteSize.MiB(2),
                                MaxMemory = ByteSize.MiB(256)
                            },
                            new VnodeSpec { Cpus = [1], Memory = ByteSize.MiB(64) }
                        ]
                    }
            };
        Assert.Null(groups.LimitHugePages(_group, spec));
        Assert.Equal(
            ("268435456", "268435456", "0"),
            (Text(group, "hugetlb.2MB." + file), Text(group, "hugetlb.2MB.rsvd." + file), Text(group, "hugetlb.1GB." + file)));
        Assert.Null(groups.LimitHugePages(_group, new VmSpec { Memory = ByteSize.MiB(64) }));
        Assert.Equal(("0", "0"), (Text(group, "hugetlb.2MB." + file), Text(group, "hugetlb.1GB." + file)));
    }

    [Fact]
    public void A_host_that_does_not_count_huge_pages_says_so_of_vms_that_have_some()
    {
        WorkerCgroups groups = First();
        Assert.Null(groups.Join(_group, 4711));
        Assert.Null(groups.LimitHugePages(_group, new VmSpec { Memory = ByteSize.MiB(64) }));
        Assert.Contains(
            "no controller hugetlb", groups.LimitHugePages(_group, new VmSpec
            {
                Numa = new NumaSpec { Vnodes = [new VnodeSpec { Cpus = [0], Memory = ByteSize.MiB(64), PageSize = ByteSize.MiB(2) }] }
            }),
            StringComparison.Ordinal);
    }

    [Fact]
    public void Swap_is_limited_as_memory_is()
    {
        WorkerCgroups groups = Second("memory pids");
        Assert.Null(groups.Join(_group, 4711));
        string group = Path.Combine(_root, "vmm", _group);
        foreach (string file in new[] { "memory.max", "memory.swap.max" })
        {
            File.WriteAllText(Path.Combine(group, file), "max\n");
        }

        Assert.Null(groups.LimitTo(_group, new VmSpec { Memory = ByteSize.MiB(64) }));
        Assert.Equal(Text(group, "memory.max"), Text(group, "memory.swap.max"));
        Assert.True(long.Parse(Text(group, "memory.swap.max"), System.Globalization.CultureInfo.InvariantCulture) < 1L << 30);
    }

    private WorkerCgroups First()
    {
        foreach (string controller in new[] { "memory", "pids", "cpu" })
        {
            Directory.CreateDirectory(Path.Combine(_root, controller));
        }

        File.WriteAllText(Path.Combine(_root, "cpu", "cpu.shares"), "1024");
        return new WorkerCgroups(_root);
    }

    private WorkerCgroups Second(string controllers, string below = "")
    {
        string root = Directory.CreateDirectory(Path.Combine(_root, below)).FullName;
        File.WriteAllText(Path.Combine(root, "cgroup.controllers"), controllers + "\n");
        return new WorkerCgroups(root);
    }
}
