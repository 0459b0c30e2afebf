using System.Text.RegularExpressions;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>What a PC is expected to have besides devices: ways to reset it, clocks that agree, a pause that the guest hears of.</summary>
[Trait("Tier", "kvm")]
public sealed partial class PlatformTests
{
    [KvmTheory]
    [InlineData("cf9")]
    [InlineData("92")]
    [InlineData("64")]
    [InlineData("fadt")]
    [InlineData("bios")]
    public void A_guest_resets_by_every_way_that_a_pc_has(string by)
    {
        (RunResult result, string said) = Run("reset", "by=" + by);
        Assert.True(result.Reason == ExitReason.Reset && result.ExitCode == 0, $"{result}\n{said}");
        Assert.Equal(by == "cf9" ? "RESETTING\nNOT YET\n" : "RESETTING\n", said);
    }

    [KvmTheory]
    [InlineData("by=triple reboot=t", ExitReason.Reset)]
    [InlineData("by=triple reboot=w,t", ExitReason.Reset)]
    [InlineData("by=triple reboot=t,k", ExitReason.TripleFault)]
    [InlineData("by=triple", ExitReason.TripleFault)]
    public void A_triple_fault_is_a_reboot_only_for_a_guest_that_was_told_to_reboot_so(string words, ExitReason outcome)
    {
        (RunResult result, string said) = Run("reset", words);
        Assert.True(result.Reason == outcome, $"{result}\n{said}");
    }

    [KvmFact]
    public void A_crash_of_a_guest_that_reboots_by_triple_faults_is_still_a_crash_where_its_registers_are_known()
    {
        (RunResult result, string said) = Run("crash", "reboot=t");
        bool lost = result.Message?.Contains("reset itself", StringComparison.Ordinal) == true
            || result.Report?.Any(l => l.Contains("registers are lost", StringComparison.Ordinal)) == true;
        Assert.True(lost || result.Reason == ExitReason.TripleFault, $"{result}\n{said}");
    }

    [KvmFact]
    public void Pm_timer_pit_and_kvmclock_agree_about_the_tsc()
    {
        (RunResult result, string said) = Run("clock", "mode=rates");
        Assert.True(result.Reason == ExitReason.DebugExit && result.ExitCode == 0, $"{result}\n{said}");
        double[] khz = [.. Khz().Matches(said).Select(m => double.Parse(m.Value))];
        Assert.Equal(3, khz.Length);
        Assert.All(khz, rate => Assert.InRange(rate / khz[2], 0.75, 1.33));
    }

    [KvmFact]
    public void Clocks_stand_still_over_a_pause_and_every_vcpu_hears_of_it()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("clock") with { Cpus = 2 };
        using VirtualMachine machine = VirtualMachine.Create(
            spec with { Boot = spec.Boot with { Cmdline = "mode=pause cpus=2" } }, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY");
        machine.Pause();
        Thread.Sleep(3000);
        machine.Resume();
        terminal.WaitFor("STOPPED 0");
        terminal.WaitFor("STOPPED 1");
        terminal.Type("q");
        Assert.True(run.Join(60_000));
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, $"{result()}\n{terminal.Said}");
        Match times = Times().Match(terminal.Said);
        long kvm = long.Parse(times.Groups["kvm"].Value), pm = long.Parse(times.Groups["pm"].Value),
            tsc = long.Parse(times.Groups["tsc"].Value);
        Assert.True(tsc - kvm >= 2500 && tsc - pm >= 2500, terminal.Said);
    }

    [KvmFact]
    public void Devices_of_a_paused_machine_do_nothing_and_go_on_where_they_were()
    {
        string disk = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(disk, new byte[16 << 20]);
            using Terminal terminal = new();
            VmSpec spec = GuestSpec("blk") with { Disks = [new DiskSpec { Path = disk }] };
            using VirtualMachine machine = VirtualMachine.Create(
                spec with { Boot = spec.Boot with { Cmdline = "requests=20000" } }, terminal);
            Thread run = Start(machine, out Func<RunResult> result);
            int pauses = 0;
            for (; pauses < 20 && run.IsAlive; pauses++)
            {
                long before = Requests();
                Assert.True(SpinWait.SpinUntil(() => Requests() > before + 100 || !run.IsAlive, 30_000), terminal.Said);
                try
                {
                    machine.Pause();
                }
                catch (VmStateException) when (!run.IsAlive || machine.State == VmState.Stopped)
                {
                    break; // it came to its end
                }

                long paused = Requests();
                Thread.Sleep(20);
                Assert.Equal(paused, Requests());
                machine.Resume();
            }

            Assert.True(run.Join(60_000));
            Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, $"{result()}\n{terminal.Said}");
            Assert.True(pauses >= 5, $"{pauses} pauses");

            long Requests() => machine.Counters.Disks.Sum(d => d.Counters.Reads + d.Counters.Writes);
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [KvmTheory]
    [InlineData(2, "STARTED 1\n")]
    [InlineData(3, "STARTED 1\nSTARTED 2\n")]
    public void Every_processor_starts_although_no_local_apic_was_enabled_before(int cpus, string expected)
    {
        (RunResult result, string said) = Run("apstart", $"cpus={cpus}", cpus);
        Assert.True(result.Reason == ExitReason.DebugExit && result.ExitCode == 0, $"{result}\n{said}");
        Assert.Equal(expected, said);
    }

    private static (RunResult Result, string Said) Run(string guest, string words, int cpus = 1)
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec(guest) with { Cpus = cpus };
        using VirtualMachine machine = VirtualMachine.Create(spec with { Boot = spec.Boot with { Cmdline = words } }, terminal);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        return (result, terminal.Said);
    }

    [GeneratedRegex(@"(?<=_khz=)\d+")]
    private static partial Regex Khz();

    [GeneratedRegex(@"kvm_ms=(?<kvm>\d+) pm_ms=(?<pm>\d+) tsc_ms=(?<tsc>\d+) told=1")]
    private static partial Regex Times();
}
