using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Machines with more memory than is resident, on a real KVM: nothing that a guest or its disk wrote is lost.</summary>
[Trait("Tier", "kvm")]
public sealed class PagerTests
{
    private static readonly ByteSize s_limit = ByteSize.MiB(64);

    [KvmFact(NeedsPager = true)]
    public void A_guest_keeps_its_memory_while_a_third_of_it_is_resident()
    {
        using Terminal terminal = new();
        VmSpec spec = Paged.Spec("dirty", "mib=128 seconds=6 tsc_khz=2500000");
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("RESULT dirty");
        run.Join();
        Assert.Equal((ExitReason.DebugExit, 0), (result().Reason, result().DebugExitCode));
        PagerStatistics pager = machine.Pager!.Statistics;
        Assert.True(pager.PagesOut > 10_000 && pager.PagesIn > 10_000, $"{pager}");
        Assert.True(pager.ResidentBytes <= pager.LimitBytes, $"{pager}");
    }

    [KvmFact(NeedsPager = true)]
    public void Memory_and_disk_agree_while_transfers_meet_pages_that_are_out()
    {
        using Terminal terminal = new();
        string disk = Path.Combine(Path.GetTempPath(), $"vmm-paged-{Guid.NewGuid():N}.raw");
        try
        {
            using (FileStream file = File.Create(disk))
            {
                file.SetLength(256 << 20);
            }

            VmSpec spec = Paged.Spec("paged", "mib=120 requests=6000") with { Disks = [new DiskSpec { Path = disk, Queues = 1 }] };
            using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
            Thread run = Start(machine, out Func<RunResult> result);
            terminal.WaitFor("READY paged");
            Random random = new(5);
            while (run.IsAlive)
            {
                machine.Pager!.SetResidentLimit(ByteSize.MiB(64 + (ulong)random.Next(40)));
                run.Join(150);
            }

            Assert.Contains("RESULT paged", terminal.Said, StringComparison.Ordinal);
            Assert.Equal((ExitReason.DebugExit, 0), (result().Reason, result().DebugExitCode));
            PagerStatistics pager = machine.Pager!.Statistics;
            Assert.True(pager.Misses > 100 && pager.PagesIn > 1000, $"{pager}");
            Assert.True(pager.PinnedBytes < 1 << 20, $"{pager}");
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact(NeedsPager = true)]
    public void A_page_that_is_lost_ends_the_machine_with_the_reason()
    {
        using Terminal terminal = new();
        VmSpec spec = Paged.Spec("dirty", "mib=128 seconds=0 tsc_khz=2500000");
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY dirty");
        Paged.DamageSwapFile();
        Assert.True(run.Join(TimeSpan.FromSeconds(60)));
        Assert.Equal(ExitReason.Failed, result().Reason);
        Assert.Contains("guest memory cannot be paged any more", result().Message, StringComparison.Ordinal);
    }

    /// <summary>What the tests have in common.</summary>
    private static class Paged
    {
        internal static VmSpec Spec(string guest, string cmdline)
        {
            VmSpec spec = GuestSpec(guest);
            return spec with
            {
                Memory = ByteSize.MiB(200),
                Paging = new PagingSpec { Resident = MemoryPortion.Of(s_limit), Swap = Path.GetTempPath() },
                Boot = spec.Boot with { Cmdline = cmdline },
            };
        }

        /// <summary>Writes over the only unnamed file of this process: its swap file.</summary>
        internal static void DamageSwapFile()
        {
            string own = Directory.GetFiles("/proc/self/fd").Single(fd =>
                new FileInfo(fd).LinkTarget is { } target && target.StartsWith(Path.GetTempPath(), StringComparison.Ordinal)
                    && target.EndsWith(" (deleted)", StringComparison.Ordinal));
            using FileStream file = new(own, FileMode.Open, FileAccess.Write);
            byte[] noise = new byte[1 << 20];
            Random.Shared.NextBytes(noise);
            for (long at = 0, end = file.Length; at < end; at += noise.Length)
            {
                file.Position = at;
                file.Write(noise, 0, (int)Math.Min(noise.Length, end - at));
            }
        }
    }
}
