using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Machine.Layout;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// Vnodes that move while a micro-guest writes and checks its memory. This machine may have one node only: then every page is home already,
/// and what is
/// tried here is that policies and threads follow. Pages that really move are in the tests of the test host and, against nodes of our own
/// making, in
/// PageMigrationTests.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class RehomeTests
{
    private static readonly HostTopology s_host = HostTopology.Read();
    private static readonly int s_node = s_host.Nodes.First(n => n.TotalBytes > 0 && n.Cpus.Count > 0).Id;
    private static readonly IReadOnlyList<int> s_cpus = s_host.Nodes.First(n => n.Id == s_node).Cpus;

    [KvmFact]
    public void A_guest_keeps_its_memory_while_its_vnodes_move_and_their_threads_follow()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(
            TwoVnodes("dirty", "mib=96 base=33554432 seconds=3 tsc_khz=2500000"), terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY dirty");
        Assert.Equal(["vcpu0 0", "vcpu1 1"], machine.HomedThreads.Select(t => $"{t.Name} {t.Vnode}").Order());
        Assert.All(machine.HomedThreads, t => Assert.Equal(NumberSet.Format(s_cpus), Allowed(t.Id)));
        if (s_host.HasNuma)
        {
            for (int i = 0; i < 6; i++)
            {
                IReadOnlyList<int> cpus = [s_cpus[i % s_cpus.Count]];
                List<double> progress = [];
                PageMigrationResult moved =
                    OnThread(() => machine.Rehome(1, [s_node], cpus, 1UL << 30, (share, _) => progress.Add(share), CancellationToken.None));
                Assert.Equal((false, 0UL), (moved.Cancelled, moved.LeftBytes.Bytes));
                Assert.Equal(1, progress[^1]);
                Assert.Equal(NumberSet.Format(cpus), Allowed(machine.HomedThreads.Single(t => t.Vnode == 1).Id));
                Assert.Equal(NumberSet.Format(s_cpus), Allowed(machine.HomedThreads.Single(t => t.Vnode == 0).Id));
                Assert.Equal((cpus.Single(), MemoryPolicyMode.Bind), (machine.Homes[1].HostCpus.Single(), machine.Homes[1].Memory.Policy));
            }
        }

        Assert.True(run.Join(60_000));
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void The_threads_of_a_disk_run_beside_the_vnode_that_it_names_and_move_with_it()
    {
        string disk = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(disk, new byte[32 << 20]);
            using Terminal terminal = new();
            VmSpec follows =
                GuestSpec("blk") with { Numa = new NumaSpec { Auto = true }, Disks = [new DiskSpec { Path = disk, Vnode = 9 }] };
            Assert.Contains(
                "a device names vnode 9, and the topology that follows this host has 1 (0-0)",
                Assert.Throws<HostMismatchException>(() => VirtualMachine.Create(follows, terminal)).Message,
                StringComparison.Ordinal);
            VmSpec spec = TwoVnodes("blk", "poll=1") with { Disks = [new DiskSpec { Path = disk, Vnode = 1 }] };
            using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
            Thread run = Start(machine, out Func<RunResult> result);
            Assert.True(SpinWait.SpinUntil(() => machine.HomedThreads.Any(t => t.Name is "disk0-io0"), 60_000), terminal.Said);
            Assert.All(machine.HomedThreads.Where(t => t.Name.StartsWith("disk0-", StringComparison.Ordinal)),
                t => Assert.Equal((1, NumberSet.Format(s_cpus)), (t.Vnode, Allowed(t.Id))));
            if (s_host.HasNuma)
            {
                OnThread(() => machine.Rehome(1, [s_node], [s_cpus[^1]], null, null, CancellationToken.None));
                Assert.All(machine.HomedThreads.Where(t => t.Name.StartsWith("disk0-", StringComparison.Ordinal)),
                    t => Assert.Equal($"{s_cpus[^1]}", Allowed(t.Id)));
            }
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact]
    public void A_vnode_whose_host_node_does_not_exist_starts_elsewhere_only_when_the_spec_lets_it()
    {
        using Terminal terminal = new();
        VmSpec spec = TwoVnodes("dirty", "mib=8 base=33554432 seconds=1 tsc_khz=2500000");
        spec = spec with { Numa = spec.Numa! with { Vnodes = [spec.Numa.Vnodes[0] with { HostNodes = [60] }, spec.Numa.Vnodes[1]] } };
        Assert.Contains(
            "vnode 0 names host node 60, which does not exist",
            Assert.Throws<HostMismatchException>(() => VirtualMachine.Create(spec, terminal)).Message,
            StringComparison.Ordinal);
        Assert.Contains(
            "numa: {fit: best}",
            Assert.Throws<HostMismatchException>(() => VirtualMachine.Create(spec, terminal)).Message,
            StringComparison.Ordinal);
        List<string> notes = [];
        using VirtualMachine machine = VirtualMachine.Create(
            spec with { Numa = spec.Numa with { Fit = FitWish.Best } }, terminal, notes.Add);
        Assert.Equal(FitOutcome.Moved, machine.Fit!.Vnodes[0].Outcome);
        Assert.Contains(notes, n => n.Contains("vnode 0 moved to host node", StringComparison.Ordinal));
        Assert.True(s_host.HasNode(machine.Homes[0].Memory.HostNodes.Single()));
        Thread run = Start(machine, out Func<RunResult> result);
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void A_cancelled_or_impossible_move_leaves_everything_as_it_was()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(
            TwoVnodes("dirty", "mib=32 base=33554432 seconds=1 tsc_khz=2500000"), terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY dirty");
        Assert.Throws<RehomeException>(() => machine.Rehome(2, [s_node], [], null, null, CancellationToken.None));
        Assert.Throws<RehomeException>(() => machine.Rehome(0, [], [], null, null, CancellationToken.None));
        Assert.Throws<KernelException>(() => OnThread(() => machine.Rehome(0, [s_node], [4000], null, null, CancellationToken.None)));
        if (s_host.HasNuma)
        {
            Assert.Throws<KernelException>(() => OnThread(() => machine.Rehome(0, [60], [], null, null, CancellationToken.None)));
            Assert.True(
                OnThread(() => machine.Rehome(0, [s_node], [s_cpus[0]], null, null, new CancellationToken(canceled: true))).Cancelled);
            Assert.Contains($" bind:{s_node} file=/memfd:vmm:vnode0", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        }

        Assert.Equal((s_node, s_cpus.Count), (machine.Homes[0].Memory.HostNodes.Single(), machine.Homes[0].HostCpus.Count));
        Assert.All(machine.HomedThreads, t => Assert.Equal(NumberSet.Format(s_cpus), Allowed(t.Id)));
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void Plugged_memory_and_the_thread_of_its_device_move_with_their_vnode()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("mem") with
        {
            Memory = ByteSize.MiB(64),
            Numa =
                new NumaSpec
                {
                    Vnodes = [new VnodeSpec
                    {
                        Cpus = [0],
                        Memory = ByteSize.MiB(64),
                        MaxMemory = ByteSize.MiB(160),
                        HostNodes = [s_node],
                        Policy = VnodePolicy.Strict
                    }]
                },
        };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        machine.SetVnodeMemory(0, ByteSize.MiB(96));
        terminal.WaitFor("NOW mib=32 device=32");
        if (s_host.HasNuma)
        {
            Assert.Equal(
                0UL, OnThread(() => machine.Rehome(0, [s_node], [s_cpus[^1]], null, null, CancellationToken.None)).LeftBytes.Bytes);
            Assert.Equal(["mem0-io", "vcpu0"], machine.HomedThreads.Select(t => t.Name).Order());
            Assert.All(machine.HomedThreads, t => Assert.Equal($"{s_cpus[^1]}", Allowed(t.Id)));
            Assert.Contains(
                $" bind:{s_node} file=/memfd:vmm:vnode0.hot", File.ReadAllText("/proc/self/numa_maps"), StringComparison.Ordinal);
        }

        machine.SetVnodeMemory(0, ByteSize.MiB(160));
        terminal.WaitFor("NOW mib=96 device=96");
        machine.SetVnodeMemory(0, ByteSize.MiB(64));
        terminal.WaitFor("NOW mib=0 device=0");
        terminal.Type("q");
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void Hot_memory_of_huge_pages_is_taken_when_it_is_plugged_and_a_plug_that_cannot_be_had_is_told_to_wait()
    {
        const string Pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            Free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        string before = File.Exists(Pool) ? File.ReadAllText(Pool).Trim() : "";
        try
        {
            File.WriteAllText(Pool, "40");
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return; // needs root and a kernel with a pool of 2 MiB pages
        }

        try
        {
            if (!string.Equals(File.ReadAllText(Free).Trim(), "40", StringComparison.Ordinal))
            {
                return; // memory is too scattered
            }

            using Terminal terminal = new();
            VmSpec spec = GuestSpec("mem") with
            {
                Numa =
                    new NumaSpec
                    {
                        Vnodes = [new VnodeSpec
                        {
                            Cpus = [0],
                            Memory = ByteSize.MiB(64),
                            MaxMemory = ByteSize.MiB(160),
                            HostNodes = [s_node],
                            Policy = VnodePolicy.Strict,
                            PageSize = ByteSize.MiB(2)
                        }]
                    },
                Memory = ByteSize.MiB(64),
            };
            using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
            Assert.Equal("8", File.ReadAllText(Free).Trim());
            Thread run = Start(machine, out Func<RunResult> result);
            terminal.WaitFor("NOW mib=0");
            machine.SetVnodeMemory(0, ByteSize.MiB(64 + 16));
            terminal.WaitFor("NOW mib=16 device=16");
            Assert.Equal("0", File.ReadAllText(Free).Trim());
            machine.SetVnodeMemory(0, ByteSize.MiB(64 + 8));
            terminal.WaitFor("NOW mib=8 device=8");
            Assert.Equal("4", File.ReadAllText(Free).Trim());
            machine.SetVnodeMemory(0, ByteSize.MiB(64 + 32));
            terminal.WaitFor("FAIL block at 16777216 was refused"); // the micro-guest takes BUSY for a failure
            Assert.True(run.Join(60_000));
            Assert.Equal((ExitReason.DebugExit, 1), (result().Reason, result().ExitCode));
        }
        finally
        {
            File.WriteAllText(Pool, before);
        }
    }

    private static VmSpec TwoVnodes(string guest, string cmdline)
    {
        VmSpec spec = GuestSpec(guest);
        VnodeSpec Vnode(int number) =>
            new() { Cpus = [number], Memory = ByteSize.MiB(64), HostNodes = [s_node], Policy = VnodePolicy.Strict };
        return spec with
        {
            Cpus = 2,
            Memory = ByteSize.MiB(128),
            Numa = new NumaSpec { Vnodes = [Vnode(0), Vnode(1)] },
            Boot = spec.Boot with { Cmdline = cmdline }
        };
    }

    private static string Allowed(int thread) =>
        File.ReadLines(
            $"/proc/self/task/{thread}/status").First(l => l.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)).Split('\t')[1];

    /// <summary>The thread that moves pages is pinned for good: not one of the tests'.</summary>
    private static T OnThread<T>(Func<T> call)
    {
        T? answer = default;
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                answer = call();
            }
            catch (Exception cause) when (cause is KernelException or RehomeException)
            {
                failure = cause;
            }
        });
        thread.Start();
        thread.Join();
        return failure is null ? answer! : throw failure;
    }
}
