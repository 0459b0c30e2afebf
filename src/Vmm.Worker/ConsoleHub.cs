using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Machine.Run;

namespace Vmm.Worker;

/// <summary>
/// The serial port's far side: keeps the end of the output, gives it and what follows to every attached console, and feeds the guest from
/// them in turn. One thread of its own, started by the first console, does all socket I/O (<see cref="ConsoleLoop"/>): a vCPU never waits
/// for a reader. A reader that falls a whole ring behind is cut off.
/// </summary>
internal sealed class ConsoleHub : IConsoleEndpoint, IDisposable
{
    /// <summary>Output a new console starts with.</summary>
    internal const int History = 64 * 1024;

    private const int FirstRing = 4096, LargestRing = 4 * History, MostConsoles = 16, InputRoom = 4096;

    private readonly object _lock = new();
    private readonly List<ConsoleSocket> _consoles = [];
    private readonly EventFd _wake = new();
    private readonly Queue<byte> _input = new();
    private byte[] _ring = new byte[FirstRing];
    private long _written;
    private Thread? _thread;
    private bool _readingStopped, _interrupted;
    private bool _closing;
    private Action<ushort, ushort>? _resized;

    public void OnResize(Action<ushort, ushort> resized) => Volatile.Write(ref _resized, resized);

    /// <summary>A console has a terminal of this size now; with several consoles the last word counts.</summary>
    internal void Resize(ConsoleSize size) => Volatile.Read(ref _resized)?.Invoke(size.Columns, size.Rows);

    public void Write(ReadOnlySpan<byte> output)
    {
        lock (_lock)
        {
            Grow(output.Length);
            foreach (byte b in output)
            {
                _ring[(int)(_written++ & (_ring.Length - 1))] = b;
            }

            if (_consoles.Count == 0)
            {
                return;
            }
        }

        _wake.Signal();
    }

    public int Read(Span<byte> input)
    {
        lock (_lock)
        {
            while (_input.Count == 0 && !_readingStopped && !_interrupted)
            {
                Monitor.Wait(_lock);
            }

            if (_readingStopped)
            {
                return 0;
            }

            if (_interrupted)
            {
                _interrupted = false;
                return -1;
            }

            int count = 0;
            while (count < input.Length && _input.TryDequeue(out byte b))
            {
                input[count++] = b;
            }

            if (_consoles.Count > 0)
            {
                _wake.Signal();
            }

            return count;
        }
    }

    public void InterruptRead()
    {
        lock (_lock)
        {
            _interrupted = true;
            Monitor.PulseAll(_lock);
        }
    }

    public void StopReading()
    {
        lock (_lock)
        {
            _readingStopped = true;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>A new console: the descriptor is for the other side. Null when there are too many.</summary>
    internal FileDescriptorHandle? Attach()
    {
        lock (_lock)
        {
            if (_closing || _consoles.Count >= MostConsoles)
            {
                return null;
            }

            (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
            _consoles.Add(new ConsoleSocket(own, Math.Max(0, _written - Math.Min(History, _ring.Length))));
            if (_thread is null)
            {
                Thread thread = new(Serve, maxStackSize: 256 * 1024) { Name = "console", IsBackground = true };
                thread.Start();
                _thread = thread; // once it runs: it is joined
            }

            _wake.Signal();
            return theirs;
        }
    }

    /// <summary>Gives consoles the rest of the output, waiting a little for slow ones, and closes them.</summary>
    public void Dispose()
    {
        StopReading();
        lock (_lock)
        {
            _closing = true;
        }

        _wake.Signal();
        _thread?.Join();
        foreach (ConsoleSocket console in _consoles)
        {
            console.Socket.Dispose();
        }

        _consoles.Clear();
        _wake.Dispose();
    }

    // Called with the lock held. A ring that grew keeps every byte at its place modulo the new size.
    private void Grow(int more)
    {
        while (_ring.Length < LargestRing && _written + more > _ring.Length)
        {
            byte[] larger = new byte[_ring.Length * 2];
            for (long at = Math.Max(0, _written - _ring.Length); at < _written; at++)
            {
                larger[(int)(at & (larger.Length - 1))] = _ring[(int)(at & (_ring.Length - 1))];
            }

            _ring = larger;
        }
    }

    private void Serve()
    {
        using ConsoleLoop loop = new(this, _wake);
        loop.Run();
    }

    /// <summary>The consoles that there are now. For the console thread.</summary>
    internal void CopyConsoles(List<ConsoleSocket> to)
    {
        lock (_lock)
        {
            to.Clear();
            to.AddRange(_consoles);
        }
    }

    /// <summary>Takes a console away whose far side is gone, or too slow. For the console thread.</summary>
    internal void Remove(ConsoleSocket console)
    {
        lock (_lock)
        {
            _consoles.Remove(console);
        }
    }

    /// <summary>True once the hub is being closed.</summary>
    internal bool IsClosing
    {
        get
        {
            lock (_lock)
            {
                return _closing;
            }
        }
    }

    /// <summary>True while input is wanted: the guest has taken most of what came.</summary>
    internal bool WantsInput
    {
        get
        {
            lock (_lock)
            {
                return !_closing && _input.Count < InputRoom;
            }
        }
    }

    /// <summary>
    /// Copies output from a place on. -1: it is overwritten already, and the reader gets an honest end rather than a gap.
    /// </summary>
    internal int CopyOutput(long from, Span<byte> to)
    {
        lock (_lock)
        {
            if (_written - from > _ring.Length)
            {
                return -1;
            }

            int length = (int)Math.Min(to.Length, _written - from);
            for (int i = 0; i < length; i++)
            {
                to[i] = _ring[(int)((from + i) & (_ring.Length - 1))];
            }

            return length;
        }
    }

    /// <summary>Input for the guest.</summary>
    internal void AddInput(ReadOnlySpan<byte> input)
    {
        lock (_lock)
        {
            foreach (byte b in input)
            {
                _input.Enqueue(b);
            }

            Monitor.PulseAll(_lock);
        }
    }
}
