using System.Net.Sockets;
using System.Text;
using Vmm.Machine.Run;
using Vmm.Machine.Spec;
using Vmm.Memory;
using Vmm.Testing;

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
            VmSpec spec = Spec("vsock") with { VirtioTransport = transport, Vsock = new VsockSpec { Cid = 42, Path = path } };
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
            Assert.True(result().Outcome == RunOutcome.DebugExit && result().ExitCode == 0, terminal.Said);
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
        VmSpec spec = Spec("balloon") with { Memory = new ByteSize(memory), VirtioTransport = transport, Balloon = new BalloonSpec { Target = new ByteSize((ulong)(64 << 20)) } };
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
        Assert.True(result().Outcome == RunOutcome.DebugExit && result().ExitCode == 0, terminal.Said);
    }

    private static void Echo(ConsoleKind console, VirtioTransport transport)
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Spec("vcon") with { Console = console, VirtioTransport = transport }, terminal);
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
        Assert.Equal((RunOutcome.DebugExit, 0), (result().Outcome, result().ExitCode));
        Assert.Equal(expected + "q\n", terminal.Said);
    }

    [KvmFact]
    public void A_panic_is_noted_and_decides_the_outcome()
    {
        using Terminal terminal = new();
        List<string> notes = [];
        void Note(string text)
        {
            lock (notes)
            {
                notes.Add(text);
            }
        }

        using VirtualMachine machine = VirtualMachine.Create(Spec("panic"), terminal, Note);
        using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(60));
        RunResult result = machine.Run(deadline.Token);
        Assert.Equal((RunOutcome.Panicked, 1), (result.Outcome, result.ExitCode));
        Assert.True(machine.GuestPanicked);
        Assert.Contains("the guest's kernel panicked", notes);
    }

    private static Thread Start(VirtualMachine machine, out Func<RunResult> result)
    {
        RunResult? ended = null;
        Thread thread = new(() =>
        {
            using CancellationTokenSource deadline = new(TimeSpan.FromSeconds(90));
            ended = machine.Run(deadline.Token);
        });
        thread.Start();
        result = () => ended!;
        return thread;
    }

    /// <summary>Resident size of this process's mapping of a vnode with exactly this many bytes.</summary>
    private static long ResidentKilobytes(ulong bytes)
    {
        bool ours = false;
        long size = 0;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            if (line.Contains("/memfd:vmm:vnode0", StringComparison.Ordinal))
            {
                ours = true;
            }
            else if (ours && line.StartsWith("Size:", StringComparison.Ordinal))
            {
                size = Kilobytes(line);
            }
            else if (ours && line.StartsWith("Rss:", StringComparison.Ordinal))
            {
                ours = false;
                if (size == (long)(bytes >> 10))
                {
                    return Kilobytes(line);
                }
            }
        }

        throw new InvalidOperationException("the guest's memory is not mapped");
    }

    private static long Kilobytes(string line) => long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]);

    private static VmSpec Spec(string guest)
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Vmm.sln")))
        {
            folder = folder.Parent;
        }

        string kernel = Path.Combine(folder!.FullName, "tests", "guests", "build", guest + ".elf");
        return new VmSpec { Memory = ByteSize.MiB(128), Boot = new BootSpec { Kernel = kernel, Cmdline = "" } };
    }

    /// <summary>A user at a terminal: types, and reads what comes.</summary>
    private sealed class Terminal : IConsoleEndpoint, IDisposable
    {
        private readonly object _gate = new();
        private readonly StringBuilder _said = new();
        private readonly Queue<byte> _typed = new();
        private bool _stopped;

        public string Said
        {
            get
            {
                lock (_gate)
                {
                    return _said.ToString();
                }
            }
        }

        public void Type(string text)
        {
            lock (_gate)
            {
                foreach (char c in text)
                {
                    _typed.Enqueue((byte)c);
                }

                Monitor.PulseAll(_gate);
            }
        }

        public void WaitFor(string text)
        {
            long deadline = Environment.TickCount64 + 60_000;
            lock (_gate)
            {
                while (!_said.ToString().Contains(text, StringComparison.Ordinal))
                {
                    Assert.True(Environment.TickCount64 < deadline, $"no \"{text}\" in: {_said}");
                    Monitor.Wait(_gate, 1000);
                }
            }
        }

        public void Write(ReadOnlySpan<byte> output)
        {
            lock (_gate)
            {
                _said.Append(Encoding.ASCII.GetString(output).Replace("\r", "", StringComparison.Ordinal));
                Monitor.PulseAll(_gate);
            }
        }

        public int Read(Span<byte> input)
        {
            lock (_gate)
            {
                while (_typed.Count == 0 && !_stopped)
                {
                    Monitor.Wait(_gate);
                }

                int count = 0;
                while (count < input.Length && !_stopped && _typed.TryDequeue(out byte value))
                {
                    input[count++] = value;
                }

                return count;
            }
        }

        public void StopReading()
        {
            lock (_gate)
            {
                _stopped = true;
                Monitor.PulseAll(_gate);
            }
        }

        public void Dispose() => StopReading();
    }
}
