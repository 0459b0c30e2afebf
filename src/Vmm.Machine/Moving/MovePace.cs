using System.Diagnostics;

namespace Vmm.Machine.Moving;

/// <summary>Keeps all channels together below a number of bytes a second. Any thread.</summary>
/// <param name="bytesPerSecond">The limit; null: none.</param>
internal sealed class MovePace(ulong? bytesPerSecond)
{
    private const int LongestWait = 100; // milliseconds

    private readonly object _gate = new();
    private long _free = Stopwatch.GetTimestamp(); // from when on there is room
    private bool _isOff = bytesPerSecond is null;

    /// <summary>Waits until so many bytes may go.</summary>
    internal void Wait(int bytes)
    {
        if (Volatile.Read(ref _isOff))
        {
            return;
        }

        lock (_gate)
        {
            _free = Math.Max(_free, Stopwatch.GetTimestamp());
            long until = _free;
            _free += (long)(bytes * (double)Stopwatch.Frequency / bytesPerSecond!.Value);
            while (!_isOff && until - Stopwatch.GetTimestamp() is > 0 and var left)
            {
                Monitor.Wait(_gate, (int)Math.Clamp((left * 1000 / Stopwatch.Frequency) + 1, 1, LongestWait));
            }
        }
    }

    /// <summary>There is no limit any more; who waits goes on.</summary>
    internal void End()
    {
        lock (_gate)
        {
            Volatile.Write(ref _isOff, true);
            Monitor.PulseAll(_gate);
        }
    }
}
