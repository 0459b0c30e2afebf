namespace Vmm.CommandLine;

/// <summary>
/// The guest's output on its way to whoever reads ours. vCPU threads put it in and never stand in write(2): a thread of its own writes.
/// While the reader goes on taking bytes, a full buffer makes the guest wait; a reader that takes nothing for a second loses what does not
/// fit.
/// </summary>
internal sealed class ConsoleBuffer : IDisposable
{
    private const int Capacity = 1 << 20, Piece = 16 << 10, PatienceMilliseconds = 1000;

    private readonly Lock _one = new(); // one writer at a time: its bytes stay together
    private readonly object _gate = new();
    private readonly byte[] _ring = new byte[Capacity];
    private readonly Func<ReadOnlySpan<byte>, bool> _write;
    private readonly Thread _thread;
    private int _from, _count;
    private long _moved = Environment.TickCount64;
    private bool _hurry, _broken, _closed, _writing;

    /// <param name="write">Writes everything, may block; false when nobody will ever take it.</param>
    internal ConsoleBuffer(Func<ReadOnlySpan<byte>, bool> write)
    {
        _write = write;
        _thread = new Thread(Drain) { IsBackground = true, Name = "console-out" };
        _thread.Start();
    }

    /// <summary>Bytes that nobody took.</summary>
    internal long Dropped { get; private set; }

    /// <summary>Takes output; waits only for a reader that reads.</summary>
    internal void Write(ReadOnlySpan<byte> output)
    {
        lock (_one)
        {
            lock (_gate)
            {
                while (output.Length > 0 && !_broken && WaitForRoom())
                {
                    int at = (_from + _count) % Capacity;
                    int part = Math.Min(Math.Min(output.Length, Capacity - _count), Capacity - at);
                    output[..part].CopyTo(_ring.AsSpan(at));
                    output = output[part..];
                    _count += part;
                    Monitor.PulseAll(_gate);
                }

                Dropped += output.Length;
            }
        }
    }

    /// <summary>From now on nobody waits for the reader: the run is to end.</summary>
    internal void Hurry()
    {
        lock (_gate)
        {
            _hurry = true;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Lets the reader have what is left, as long as it takes some; after <see cref="Hurry"/> for half a second at most.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            long hurried = 0;
            while ((_count > 0 || _writing) && !_broken)
            {
                long now = Environment.TickCount64;
                hurried = _hurry && hurried == 0 ? now : hurried;
                if (_hurry && now - hurried > PatienceMilliseconds / 2)
                {
                    break;
                }

                Monitor.Wait(_gate, 50);
            }

            _closed = true;
            Monitor.PulseAll(_gate);
        }
    }

    // Under the gate. A reader that took something a moment ago is waited for.
    private bool WaitForRoom()
    {
        while (_count == Capacity && !_hurry && !_broken && Environment.TickCount64 - _moved < PatienceMilliseconds)
        {
            Monitor.Wait(_gate, 50);
        }

        return _count < Capacity && !_broken;
    }

    private void Drain()
    {
        byte[] piece = new byte[Piece];
        while (true)
        {
            int length;
            lock (_gate)
            {
                while (_count == 0 && !_closed)
                {
                    Monitor.Wait(_gate);
                }

                if (_closed)
                {
                    return;
                }

                length = Math.Min(Math.Min(_count, Piece), Capacity - _from);
                _ring.AsSpan(_from, length).CopyTo(piece);
                _from = (_from + length) % Capacity;
                _count -= length;
                _writing = true;
            }

            bool taken = _write(piece.AsSpan(0, length));
            lock (_gate)
            {
                _writing = false;
                _broken |= !taken;
                _moved = Environment.TickCount64;
                Monitor.PulseAll(_gate);
            }
        }
    }
}
