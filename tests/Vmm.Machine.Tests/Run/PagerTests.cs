using System.Globalization;
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
            Assert.Equal(0UL, pager.ForeignFaults); // no thread waited in the kernel for a page that a transfer uses
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact(NeedsPager = true)]
    public void Without_the_filter_io_threads_wait_for_pages_in_the_kernel()
    {
        using Terminal terminal = new();
        string disk = Path.Combine(Path.GetTempPath(), $"vmm-paged-{Guid.NewGuid():N}.raw");
        try
        {
            using (FileStream file = File.Create(disk))
            {
                file.SetLength(256 << 20);
            }

            VmSpec spec = Paged.Spec("paged", "mib=120 requests=3000") with { Disks = [new DiskSpec { Path = disk, Queues = 1 }] };
            using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
            NoFilter.TakeFrom(machine.Memory);
            Thread run = Start(machine, out _);
            run.Join(); // with what the guest finds in its memory then, or with an error of its disk
            Assert.True(machine.Pager!.Statistics.ForeignFaults > 0, $"{machine.Pager.Statistics}");
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmFact(NeedsPager = true)]
    public void Idle_guests_are_squeezed_and_woken()
    {
        int count = int.Parse(Environment.GetEnvironmentVariable("VMM_SQUEEZED") ?? "8", CultureInfo.InvariantCulture);
        ByteSize squeezed = ByteSize.MiB(24);
        List<IdleGuest> guests = [];
        try
        {
            for (int i = 0; i < count; i++)
            {
                guests.Add(new IdleGuest());
            }

            guests.ForEach(guest => guest.Terminal.WaitFor("READY held"));
            guests.ForEach(guest => guest.Machine.Pause());
            guests.ForEach(guest => guest.Machine.Pager!.SetResidentLimit(squeezed));
            foreach (IdleGuest guest in guests)
            {
                Assert.True(SpinWait.SpinUntil(() => guest.Machine.Pager!.Statistics.ResidentBytes <= squeezed, 60_000),
                    $"{guest.Machine.Pager!.Statistics}");
            }

            foreach (IdleGuest guest in guests)
            {
                guest.Machine.Resume();
                guest.Terminal.Type("x");
            }

            foreach (IdleGuest guest in guests)
            {
                guest.Terminal.WaitFor("RESULT held");
                guest.Run.Join();
                Assert.Equal((ExitReason.DebugExit, 0), (guest.Result().Reason, guest.Result().DebugExitCode));
                PagerStatistics pager = guest.Machine.Pager!.Statistics;
                Assert.True(pager.PagesIn > 5000 && pager.ResidentBytes <= squeezed && pager.ForeignFaults == 0, $"{pager}");
            }
        }
        finally
        {
            guests.ForEach(guest => guest.Dispose());
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

    /// <summary>A guest of 256 MiB that holds 48 MiB and waits to be woken.</summary>
    private sealed class IdleGuest : IDisposable
    {
        internal IdleGuest()
        {
            VmSpec spec = Paged.Spec("held", "mib=48") with { Memory = ByteSize.MiB(256) };
            Machine = VirtualMachine.Create(spec, Terminal);
            Run = Start(Machine, out Func<RunResult> result);
            Result = result;
        }

        internal Terminal Terminal { get; } = new();

        internal VirtualMachine Machine { get; }

        internal Thread Run { get; }

        internal Func<RunResult> Result { get; }

        public void Dispose()
        {
            Machine.Dispose();
            Run.Join();
            Terminal.Dispose();
        }
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
