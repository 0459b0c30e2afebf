using System.Text;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Run;

/// <summary>Whole machines on the local KVM, with the micro-guests of tests/guests.</summary>
[Trait("Tier", "kvm")]
public sealed class MicroGuestTests
{
    [KvmFact]
    public void A_machine_that_is_disposed_while_it_runs_ends_first()
    {
        // Busy processors: the thread of the run wakes later than the one that disposes.
        using CancellationTokenSource over = new();
        Thread[] busy = [.. Enumerable.Range(0, 2 * Environment.ProcessorCount).Select(_ => new Thread(() =>
        {
            while (!over.IsCancellationRequested)
            {
                Thread.SpinWait(1000);
            }
        }))];
        Array.ForEach(busy, thread => thread.Start());
        try
        {
            for (int i = 0; i < 40; i++)
            {
                using Terminal terminal = new();
                VirtualMachine machine = VirtualMachine.Create(GuestKit.GuestSpec("idle"), terminal);
                RunResult? ended = null;
                Exception? fault = null;
                using ManualResetEventSlim started = new();
                Thread run = new(() => fault = Record.Exception(() => ended = machine.Run(started.Set, CancellationToken.None)));
                run.Start();
                started.Wait();
                Thread.SpinWait(i * 20_000);
                machine.Dispose();
                Assert.True(run.Join(10_000));
                machine.Dispose();
                Assert.Equal((null, ExitReason.Stopped), (fault, ended?.Reason));
            }
        }
        finally
        {
            over.Cancel();
        }
    }

    [KvmFact]
    public void Hello_speaks_on_the_serial_port_and_chooses_its_exit_code()
    {
        (RunResult result, string said) = Run(new VmSpec { Memory = ByteSize.MiB(128) }, "hello");
        Assert.Equal((ExitReason.DebugExit, 0), (result.Reason, result.ExitCode));
        Assert.Equal("HELLO", said.Trim());
    }

    [KvmFact]
    public void Numa_guest_reads_from_acpi_what_the_spec_says()
    {
        VmSpec spec = NumaSplit.Apply(new VmSpec { Memory = ByteSize.MiB(256), Cpus = 4 }, 2);
        (RunResult result, string said) = Run(spec, "numa");
        Assert.Equal(ExitReason.DebugExit, result.Reason);
        Assert.Equal(0, result.ExitCode);
        string[] lines = [.. said.Split('\n').Select(l => l.Trim())];
        Assert.Equal(
            ["CPU apic=0 node=0", "CPU apic=1 node=0", "CPU apic=2 node=1", "CPU apic=3 node=1"],
            lines.Where(l => l.StartsWith("CPU ", StringComparison.Ordinal)));
        Assert.Equal(
            ["MEM base=0x0 len=0x8000000 node=0", "MEM base=0x8000000 len=0x8000000 node=1"],
            lines.Where(l => l.StartsWith("MEM ", StringComparison.Ordinal)));
        Assert.Contains("DIST 0 1 20", lines);
    }

    [KvmFact]
    public void Block_guest_verifies_its_disk_over_pci() => VerifyDisk(VirtioTransport.Pci);

    [KvmFact]
    public void Block_guest_verifies_its_disk_over_mmio() => VerifyDisk(VirtioTransport.Mmio);

    [KvmFact]
    public void Hostile_rings_end_in_needs_reset_and_a_reset_heals_the_device()
    {
        foreach (VirtioTransport transport in Enum.GetValues<VirtioTransport>())
        {
            (RunResult result, string said) = WithDisk(disk => Run(DiskSpec(disk, transport), "badring"));
            Assert.True(
                result.Reason == ExitReason.DebugExit && result.ExitCode == 0, $"{transport}: {result.Reason} {result.Message}\n{said}");
            Assert.Equal(10, said.Split('\n').Count(l => l.Contains("needs_reset=1 recovered=1", StringComparison.Ordinal)));
        }
    }

    [KvmFact]
    public void A_guest_that_idles_for_ever_is_stopped_by_the_token()
    {
        using CancellationTokenSource stop = new();
        Listener console = new() { Heard = text => { if (text.Contains("READY", StringComparison.Ordinal)) { stop.Cancel(); } } };
        using VirtualMachine machine = VirtualMachine.Create(Spec(new VmSpec { Memory = ByteSize.MiB(128) }, "idle"), console);
        Assert.Equal(ExitReason.Stopped, machine.Run(stop.Token).Reason);
    }

    [KvmFact]
    public void An_exception_in_the_guest_is_reported_by_its_own_handler()
    {
        (RunResult result, string said) = Run(new VmSpec { Memory = ByteSize.MiB(128) }, "trap");
        Assert.Equal(0xEE, result.ExitCode);
        Assert.Contains("EXCEPTION vector=6", said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_triple_fault_is_told_with_registers_code_gates_and_last_exits()
    {
        (RunResult result, string said) = Run(new VmSpec { Memory = ByteSize.MiB(128), Cpus = 2 }, "crash");
        Assert.True(result.Reason == ExitReason.TripleFault && result.ExitCode == 1, $"{result.Reason} {result.Message}\n{said}");
        Assert.Contains("CRASHING", said, StringComparison.Ordinal);
        string[] report = [.. result.Report!];
        Assert.Equal("vCPU 0, which crashed:", report[0]);
        // The last it did outside was to say so: the end of "CRASHING\n" on the serial port.
        Assert.Contains(report,
            l => l.StartsWith("  last exits: ", StringComparison.Ordinal) && l.Contains("out 0x3f8 0x47", StringComparison.Ordinal));
        Assert.Contains(report, l => l.StartsWith("vCPU 1: not started", StringComparison.Ordinal));
        if (!report.Any(l => l.Contains("registers are lost", StringComparison.Ordinal)))
        {
            Assert.Contains(
                report, l => l.StartsWith("  code: ", StringComparison.Ordinal) && l.Contains("ud2 [0f0b]", StringComparison.Ordinal));
            Assert.Contains(report, l => l.Contains("rbx 000000001234abcd", StringComparison.Ordinal));
            Assert.Contains(report, l => l.Contains("#UD not present", StringComparison.Ordinal));
        }
    }

    private static void VerifyDisk(VirtioTransport transport)
    {
        (RunResult result, string said) = WithDisk(disk => Run(DiskSpec(disk, transport), "blk"));
        Assert.True(result.Reason == ExitReason.DebugExit && result.ExitCode == 0, $"{result.Reason} {result.Message}\n{said}");
        Assert.Contains("id=serial-7 ", said, StringComparison.Ordinal);
        Assert.Contains("verify=ok", said, StringComparison.Ordinal);
    }

    private static VmSpec DiskSpec(string disk, VirtioTransport transport) =>
        new()
        {
            Memory = ByteSize.MiB(128),
            VirtioTransport = transport,
            Disks = [new DiskSpec { Path = disk, Serial = "serial-7", Queues = 2 }]
        };

    private static (RunResult, string) WithDisk(Func<string, (RunResult, string)> run)
    {
        string disk = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(disk))
            {
                file.SetLength(32 << 20);
            }

            return run(disk);
        }
        finally
        {
            File.Delete(disk);
        }
    }

    private static (RunResult Result, string Said) Run(VmSpec spec, string guest)
    {
        Listener console = new();
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        using VirtualMachine machine = VirtualMachine.Create(Spec(spec, guest), console);
        RunResult result = machine.Run(deadline.Token);
        return (result, console.Said);
    }

    private static VmSpec Spec(VmSpec spec, string guest)
    {
        string kernel = Path.Combine(Tree.Root, "tests", "guests", "build", guest + ".elf");
        return spec with { Boot = new BootSpec { Kernel = kernel, Cmdline = "" } };
    }

    private sealed class Listener : IConsoleEndpoint
    {
        private readonly StringBuilder _said = new();
        private readonly TaskCompletionSource _stop = new();

        public Action<string>? Heard { get; init; }

        public string Said
        {
            get
            {
                lock (_said)
                {
                    return _said.ToString();
                }
            }
        }

        public void Write(ReadOnlySpan<byte> output)
        {
            lock (_said)
            {
                _said.Append(Encoding.ASCII.GetString(output));
            }

            Heard?.Invoke(Said);
        }

        public int Read(Span<byte> input)
        {
            _stop.Task.Wait();
            return 0;
        }

        public void InterruptRead()
        {
            // It reads nothing until the end.
        }

        public void StopReading() => _stop.TrySetResult();
    }
}
