using System.Diagnostics;

namespace Vmm.Machine.Run;

/// <summary>Where vCPU threads wait while the machine is paused. Closed, then every vCPU kicked, then <see cref="WaitParked"/>.</summary>
internal sealed class PauseGate
{
    private readonly object _lock = new();
    private volatile bool _closed;
    private bool _over;
    private bool _locked;
    private int _parked;
    private volatile int _turn;
    private TimeSpan _rest;

    /// <summary>Looked at by vCPU threads between two exits.</summary>
    internal bool Closed => _closed;

    /// <summary>Another number than before: <see cref="Rest"/> is due. Looked at by vCPU threads between two exits.</summary>
    internal int Turn => _turn;

    internal void Close()
    {
        lock (_lock)
        {
            _closed = !_over;
            Monitor.PulseAll(_lock); // who rests
        }
    }

    /// <summary>Every vCPU rests for a while, once; then they are kicked.</summary>
    internal void Slow(TimeSpan rest)
    {
        lock (_lock)
        {
            _rest = rest;
            _turn++;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>On a vCPU thread: rests as long as it is to in this turn, or until the gate closes or the machine ends.</summary>
    /// <returns>The turn.</returns>
    internal int Rest()
    {
        lock (_lock)
        {
            int turn = _turn;
            long begin = Stopwatch.GetTimestamp();
            TimeSpan left;
            while (!_closed && !_over && _turn == turn && (left = _rest - Stopwatch.GetElapsedTime(begin)) > TimeSpan.Zero)
            {
                Monitor.Wait(_lock, left);
            }

            return turn;
        }
    }

    /// <summary>Closes so that <see cref="Open"/> does not open it any more.</summary>
    internal void Lock()
    {
        lock (_lock)
        {
            _locked = true;
            _closed = !_over;
        }
    }

    internal void Open()
    {
        lock (_lock)
        {
            _closed = _locked && !_over;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Opens for good: the machine ends, nobody waits here any more.</summary>
    internal void End()
    {
        lock (_lock)
        {
            _over = true;
            _closed = false;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>On a vCPU thread: waits until the gate opens.</summary>
    internal void Park()
    {
        lock (_lock)
        {
            _parked++;
            Monitor.PulseAll(_lock);
            while (_closed)
            {
                Monitor.Wait(_lock);
            }

            _parked--;
        }
    }

    /// <summary>Waits until that many threads stand at the closed gate; false when the machine ended instead.</summary>
    internal bool WaitParked(int threads)
    {
        lock (_lock)
        {
            while (_parked < threads && !_over)
            {
                Monitor.Wait(_lock);
            }

            return !_over;
        }
    }
}
