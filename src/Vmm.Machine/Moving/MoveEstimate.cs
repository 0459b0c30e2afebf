using System.Diagnostics;

namespace Vmm.Machine.Moving;

/// <summary>What is known of how fast memory goes and how fast it is written; one thread adds, any reads.</summary>
internal sealed class MoveEstimate
{
    // What is sent in one go into empty buffers says little of the way behind them.
    private const ulong LeastBytes = 4 << 20;

    private static readonly TimeSpan s_overhead = TimeSpan.FromMilliseconds(5); // rest, state and answers

    private double _sent, _dirty; // bytes a second
    private long _looked = Stopwatch.GetTimestamp();

    /// <summary>Bytes that go in a second; 0: not known.</summary>
    internal ulong Sent => (ulong)Volatile.Read(ref _sent);

    /// <summary>Bytes that are written in a second.</summary>
    internal ulong Dirty => (ulong)Volatile.Read(ref _dirty);

    /// <summary>A round was sent.</summary>
    internal void AddRound(ulong bytes, TimeSpan took)
    {
        if (bytes >= LeastBytes || _sent == 0)
        {
            double rate = bytes / Math.Max(took.TotalSeconds, 1e-6);
            Volatile.Write(ref _sent, _sent == 0 ? rate : ((_sent * 3) + rate) / 4);
        }
    }

    /// <summary>So much was found written since the last time.</summary>
    internal void AddDirty(ulong bytes)
    {
        long now = Stopwatch.GetTimestamp();
        double rate = bytes / Math.Max(Stopwatch.GetElapsedTime(_looked, now).TotalSeconds, 1e-3);
        _looked = now;
        Volatile.Write(ref _dirty, _dirty == 0 ? rate : (_dirty + rate) / 2);
    }

    /// <summary>How long the guest would stand still for so many bytes.</summary>
    internal TimeSpan Downtime(ulong bytes) => s_overhead + (bytes == 0 || _sent == 0 ? TimeSpan.Zero
        : TimeSpan.FromSeconds(Math.Min(bytes / _sent, 1e6)));

    /// <summary>Whether that is short enough. A time below the overhead is taken as it.</summary>
    internal bool Fits(ulong bytes, TimeSpan downtime) =>
        bytes == 0 || Downtime(bytes) <= (downtime > s_overhead * 2 ? downtime : s_overhead * 2);
}
