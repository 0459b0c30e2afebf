using Vmm.Devices.Virtio;

namespace Vmm.Machine.Run;

/// <summary>
/// Lets the vCPUs run only a part of the time: they write less memory then. A pause, or the end of the machine, waits for no rest. Any
/// thread; ended when disposed.
/// </summary>
internal sealed class VcpuThrottle : IDisposable
{
    /// <summary>At most this: a guest that hardly runs notices more of it than of a pause.</summary>
    internal const int MostPercent = 90;

    private const int PeriodMilliseconds = 20;

    private readonly PauseGate _gate;
    private readonly Action _kick;
    private readonly IIoThreads _threads;
    private readonly object _lock = new();
    private int _percent;
    private bool _isOver;
    private Thread? _thread;

    /// <param name="gate">Where the vCPUs rest.</param>
    /// <param name="kick">Makes every vCPU leave the guest.</param>
    /// <param name="threads">Starts a thread.</param>
    internal VcpuThrottle(PauseGate gate, Action kick, IIoThreads threads) => (_gate, _kick, _threads) = (gate, kick, threads);

    /// <summary>Part of the time in which they rest, 0 to <see cref="MostPercent"/>.</summary>
    internal int Percent
    {
        get => Volatile.Read(ref _percent);
        set
        {
            lock (_lock)
            {
                _percent = Math.Clamp(value, 0, MostPercent);
                if (_percent > 0 && _thread is null && !_isOver)
                {
                    _thread = new Thread(Run, maxStackSize: 128 * 1024) { Name = "throttle", IsBackground = true };
                    _threads.Start(_thread);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _isOver = true;
            _percent = 0;
            Monitor.PulseAll(_lock);
        }

        _thread?.Join();
        _gate.Slow(TimeSpan.Zero); // nobody rests on
    }

    private void Run()
    {
        while (true)
        {
            lock (_lock)
            {
                if (_isOver)
                {
                    return;
                }

                _gate.Slow(TimeSpan.FromMilliseconds(PeriodMilliseconds * _percent / 100.0));
            }

            _kick();
            lock (_lock)
            {
                if (!_isOver)
                {
                    Monitor.Wait(_lock, PeriodMilliseconds);
                }
            }
        }
    }
}
