using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Machine.Run;

namespace Vmm.Worker;

/// <summary>
/// The serial port's far side: keeps the end of the output, gives it and what follows to every attached console, and feeds the guest from
/// them in turn. One thread of its own, started by the first console, does all socket I/O: a vCPU never waits for a reader. A reader that
/// falls a whole ring behind is cut off.
/// </summary>
internal sealed class ConsoleHub : IConsoleEndpoint, IDisposable
{
    /// <summary>Output a new console starts with.</summary>
    internal const int History = 64 * 1024;

    private const int FirstRing = 4096, LargestRing = 4 * History, MostConsoles = 16, InputRoom = 4096;

    private readonly object _lock = new();
    private readonly List<Attached> _consoles = [];
    private readonly EventFd _wake = new();
    private readonly Queue<byte> _input = new();
    private byte[] _ring = new byte[FirstRing];
    private long _written;
    private Thread? _thread;
    private bool _readingStopped;
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
            while (_input.Count == 0 && !_readingStopped)
            {
                Monitor.Wait(_lock);
            }

            if (_readingStopped)
            {
                return 0;
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
            _consoles.Add(new Attached(own, Math.Max(0, _written - Math.Min(History, _ring.Length))));
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
        foreach (Attached console in _consoles)
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
        PollEntry[] polls = new PollEntry[MostConsoles + 1];
        Attached[] consoles = new Attached[MostConsoles];
        byte[] buffer = new byte[4096];
        long giveUp = long.MaxValue;
        while (true)
        {
            int count;
            bool backlog = false;
            lock (_lock)
            {
                if (_closing && giveUp == long.MaxValue)
                {
                    giveUp = Environment.TickCount64 + 1000;
                }

                count = _consoles.Count;
                polls[0] = new PollEntry(_wake.Handle, read: true);
                for (int i = 0; i < count; i++)
                {
                    consoles[i] = _consoles[i];
                    backlog |= consoles[i].Position < _written;
                    polls[i + 1] = new PollEntry(consoles[i].Socket, !_closing && _input.Count < InputRoom, consoles[i].Position < _written);
                }

                if (_closing && (!backlog || Environment.TickCount64 >= giveUp))
                {
                    return;
                }
            }

            Poll.Wait(polls.AsSpan(0, count + 1), giveUp == long.MaxValue ? -1 : 50);
            _wake.TryTake(out _);
            for (int i = 0; i < count; i++)
            {
                bool alive = (!polls[i + 1].Writable || Send(consoles[i], buffer)) && (!polls[i + 1].Readable || Receive(consoles[i], buffer));
                if (!alive)
                {
                    lock (_lock)
                    {
                        _consoles.Remove(consoles[i]);
                    }

                    consoles[i].Socket.Dispose();
                }
            }
        }
    }

    private bool Send(Attached console, byte[] buffer)
    {
        while (true)
        {
            int length;
            lock (_lock)
            {
                if (_written - console.Position > _ring.Length)
                {
                    return false; // what it has not seen is overwritten: an honest end rather than a gap
                }

                length = (int)Math.Min(buffer.Length, _written - console.Position);
                for (int i = 0; i < length; i++)
                {
                    buffer[i] = _ring[(int)((console.Position + i) & (_ring.Length - 1))];
                }
            }

            int sent = length == 0 ? 0 : console.Socket.Send(buffer.AsSpan(0, length));
            if (sent <= 0)
            {
                return sent == 0;
            }

            console.Position += sent;
        }
    }

    private bool Receive(Attached console, byte[] buffer)
    {
        int got = console.Socket.Receive(buffer.AsSpan(0, 256));
        if (got <= 0)
        {
            return got == -1;
        }

        lock (_lock)
        {
            for (int i = 0; i < got; i++)
            {
                _input.Enqueue(buffer[i]);
            }

            Monitor.PulseAll(_lock);
        }

        return true;
    }

    private sealed class Attached(UnixStream socket, long position)
    {
        internal UnixStream Socket { get; } = socket;

        // Written by the console thread only.
        internal long Position { get; set; } = position;
    }
}
