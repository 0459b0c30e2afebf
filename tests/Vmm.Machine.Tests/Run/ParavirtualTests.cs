using System.Net.Sockets;
using System.Text;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Balloon, console and panic device of whole machines, with the micro-guests of tests/guests.</summary>
[Trait("Tier", "kvm")]
public sealed class ParavirtualTests
{
    [KvmFact]
    public void An_inflated_balloon_shrinks_the_memory_of_the_host_over_pci() => InflateAndDeflate(VirtioTransport.Pci);

    [KvmFact]
    public void An_inflated_balloon_shrinks_the_memory_of_the_host_over_mmio() => InflateAndDeflate(VirtioTransport.Mmio);

    [KvmFact]
    public void A_virtio_console_carries_lines_both_ways_over_pci() => Echo(ConsoleKind.Virtio, VirtioTransport.Pci);

    [KvmFact]
    public void A_virtio_console_beside_the_serial_port_carries_lines_both_ways_over_mmio() => Echo(ConsoleKind.Both, VirtioTransport.Mmio);

    [KvmFact]
    public void Sockets_reach_the_guest_and_the_host_over_pci() => Sockets(VirtioTransport.Pci);

    [KvmFact]
    public void Sockets_reach_the_guest_and_the_host_over_mmio() => Sockets(VirtioTransport.Mmio);

    private static void Sockets(VirtioTransport transport)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-vsock-").FullName;
        try
        {
            string path = Path.Combine(folder, "v");
            using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            listener.Bind(new UnixDomainSocketEndPoint(path + "_1234"));
            listener.Listen();
            using Terminal terminal = new();
            VmSpec spec = GuestSpec("vsock") with { VirtioTransport = transport, Vsock = new VsockSpec { Cid = 42, Path = path } };
            using VirtualMachine machine = VirtualMachine.Create(spec with { Boot = spec.Boot with { Cmdline = "port=1234" } }, terminal);
            Thread run = Start(machine, out Func<RunResult> result);
            using (Socket heard = listener.Accept())
            {
                Assert.Equal("HELLO\n", ReadText(heard, 6));
            }

            terminal.WaitFor("READY cid=42");
            using Socket program = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
            program.Connect(new UnixDomainSocketEndPoint(path));
            program.Send("CONNECT 7\n"u8);
            Assert.StartsWith("OK ", ReadText(program, "OK 1073741824\n".Length), StringComparison.Ordinal);
            for (int i = 0; i < 200; i++)
            {
                string text = $"{i} " + new string((char)('a' + (i % 16)), i * 17);
                program.Send(Encoding.ASCII.GetBytes(text));
                Assert.Equal(text, ReadText(program, text.Length));
            }

            program.Send("quit"u8);
            Assert.True(run.Join(60_000));
            Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, terminal.Said);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string ReadText(Socket socket, int count)
    {
        byte[] text = new byte[count];
        for (int done = 0; done < count;)
        {
            int got = socket.Receive(text.AsSpan(done));
            Assert.NotEqual(0, got);
            done += got;
        }

        return Encoding.ASCII.GetString(text);
    }

    private static void InflateAndDeflate(VirtioTransport transport)
    {
        using Terminal terminal = new();
        ulong memory = (transport == VirtioTransport.Pci ? 194UL : 198UL) << 20; // a size that no other mapping of this process has
        VmSpec spec = GuestSpec("balloon") with
        {
            Memory = new ByteSize(memory),
            VirtioTransport = transport,
            Balloon = new BalloonSpec { Target = new ByteSize((ulong)(64 << 20)) }
        };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("FILLED");
        long full = ResidentKilobytes(memory);
        Assert.InRange(full, 64 << 10, 100 << 10);
        terminal.Type("\n");
        terminal.WaitFor("INFLATED target=16384");
        long inflated = ResidentKilobytes(memory);
        Assert.InRange(full - inflated, 64 << 10, 65 << 10);
        Assert.Equal((64UL << 20, 64UL << 20), (machine.Balloon!.Info().HeldBytes, machine.Balloon.Info().ActualBytes));
        terminal.Type("\n");
        Assert.True(run.Join(60_000));
        Assert.True(result().Reason == ExitReason.DebugExit && result().ExitCode == 0, terminal.Said);
    }

    [KvmFact]
    public void The_virtio_console_has_the_size_of_the_terminal_and_follows_it()
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(GuestSpec("vcon") with { Console = ConsoleKind.Virtio }, terminal);
        terminal.Resize!(97, 31);
        Thread run = Start(machine, out _);
        terminal.WaitFor("READY");
        terminal.Type("s");
        terminal.WaitFor("97x31");
        terminal.Resize(132, 43);
        terminal.Type("s");
        terminal.WaitFor("132x43");
        terminal.Type("q");
        Assert.True(run.Join(60_000));
    }

    private static void Echo(ConsoleKind console, VirtioTransport transport)
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(
            GuestSpec("vcon") with { Console = console, VirtioTransport = transport }, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY");
        StringBuilder expected = new("READY\n");
        for (int i = 0; i < 50; i++)
        {
            string line = $"line {i} with some text behind it {new string((char)('a' + (i % 16)), i)}\n";
            expected.Append(line);
            terminal.Type(line);
            terminal.WaitFor(expected.ToString());
        }

        terminal.Type("q\n");
        Assert.True(run.Join(60_000));
        Assert.Equal((ExitReason.DebugExit, 0), (result().Reason, result().ExitCode));
        Assert.Equal(expected + "q\n", terminal.Said);
    }

    [KvmTheory]
    [InlineData(CrashPolicy.Stop)]
    [InlineData(CrashPolicy.Restart)]
    public void A_panic_is_noted_and_ends_the_run(CrashPolicy policy)
    {
        using Terminal terminal = new();
        Notes notes = new();
        using VirtualMachine machine = VirtualMachine.Create(GuestSpec("panic") with { OnCrash = policy }, terminal, notes.Add);
        List<bool> told = [];
        machine.GuestPanic += (_, panic) => told.Add(panic.Panicked);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        Assert.Equal((ExitReason.GuestPanicked, 1), (result.Reason, result.ExitCode));
        Assert.True(machine.GuestPanicked);
        Assert.Contains("the guest's kernel panicked", notes.All);
        Assert.Equal([true], told);
        Assert.DoesNotContain("WENT ON", terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_panic_that_is_preserved_stops_every_vcpu_for_good()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("panic") with { OnCrash = CrashPolicy.Preserve, Cpus = 2 };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        using ManualResetEventSlim preserved = new();
        machine.Preserved += (_, _) => preserved.Set();
        Thread run = new(() => machine.Run(CancellationToken.None));
        run.Start();
        Assert.True(preserved.Wait(60_000));
        Assert.Equal(VmState.Crashed, machine.State);
        Assert.Throws<VmStateException>(machine.Resume);
        Assert.Throws<VmStateException>(machine.Pause);
        long exits = machine.Counters.Exits;
        Assert.False(run.Join(200));
        Assert.Equal(exits, machine.Counters.Exits);
        machine.Dispose();
        Assert.True(run.Join(60_000));
        Assert.DoesNotContain("WENT ON", terminal.Said, StringComparison.Ordinal);
    }

    [KvmFact]
    public void A_crash_kernel_that_takes_over_is_noted_and_the_guest_goes_on()
    {
        using Terminal terminal = new();
        Notes notes = new();
        VmSpec spec = GuestSpec("panic");
        using VirtualMachine machine = VirtualMachine.Create(
            spec with { Boot = spec.Boot with { Cmdline = "event=2" } }, terminal, notes.Add);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        Assert.Equal((ExitReason.Reset, 0), (result.Reason, result.ExitCode));
        Assert.Contains("the guest's kernel panicked; its crash kernel takes over", notes.All);
        Assert.Contains("WENT ON", terminal.Said, StringComparison.Ordinal);
    }

    private sealed class Notes
    {
        private readonly List<string> _notes = [];

        public string[] All
        {
            get
            {
                lock (_notes)
                {
                    return [.. _notes];
                }
            }
        }

        public void Add(string text)
        {
            lock (_notes)
            {
                _notes.Add(text);
            }
        }
    }
}
