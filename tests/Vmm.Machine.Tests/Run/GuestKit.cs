using System.Text;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Run;

/// <summary>Machines with the micro-guests of tests/guests, run on a thread beside the test.</summary>
internal static class GuestKit
{
    internal static Thread Start(VirtualMachine machine, out Func<RunResult> result)
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
    internal static long ResidentKilobytes(ulong bytes, string name = "vnode0")
    {
        bool ours = false;
        long size = 0;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            if (line.Contains("/memfd:vmm:" + name, StringComparison.Ordinal))
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

    internal static VmSpec GuestSpec(string guest)
    {
        string kernel = Path.Combine(Tree.Root, "tests", "guests", "build", guest + ".elf");
        return new VmSpec { Memory = ByteSize.MiB(128), Boot = new BootSpec { Kernel = kernel, Cmdline = "" } };
    }
}

/// <summary>A user at a terminal: types, and reads what comes.</summary>
internal sealed class Terminal : IConsoleEndpoint, IDisposable
{
    private readonly object _gate = new();
    private readonly StringBuilder _said = new();
    private readonly Queue<byte> _typed = new();
    private bool _stopped, _interrupted;

    /// <summary>Changes the size of the terminal.</summary>
    public Action<ushort, ushort>? Resize { get; private set; }

    public void OnResize(Action<ushort, ushort> resized) => Resize = resized;

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

    /// <summary>What was said so far is not waited for any more.</summary>
    public void Forget()
    {
        lock (_gate)
        {
            _said.Clear();
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
            while (_typed.Count == 0 && !_stopped && !_interrupted)
            {
                Monitor.Wait(_gate);
            }

            if (_interrupted && !_stopped)
            {
                _interrupted = false;
                return -1;
            }

            int count = 0;
            while (count < input.Length && !_stopped && _typed.TryDequeue(out byte value))
            {
                input[count++] = value;
            }

            return count;
        }
    }

    /// <summary>What was typed and nobody has taken.</summary>
    public string Untaken
    {
        get
        {
            lock (_gate)
            {
                return Encoding.ASCII.GetString([.. _typed]);
            }
        }
    }

    public void InterruptRead()
    {
        lock (_gate)
        {
            _interrupted = true;
            Monitor.PulseAll(_gate);
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
