using Vmm.Devices.Virtio;

namespace Vmm.Machine.Run;

/// <summary>
/// Disks that wait for the host (<see cref="WaitingDisk"/>): the machine is paused, and goes on by itself when all of them waited for space
/// and there is some again, or for servers that are back. It is looked at in growing intervals, from one second to half a minute; a fault
/// that comes back soon goes on with the interval where it was. A pause that somebody else asked for, or took over, is theirs to end.
/// </summary>
/// <param name="starter">Starts its thread, once there is something to do.</param>
internal sealed class DiskStalls(IIoThreads? starter)
{
    private static readonly TimeSpan s_first = TimeSpan.FromSeconds(1), s_longest = TimeSpan.FromSeconds(30);

    private readonly object _gate = new(); // waited on, so no Lock
    private IPausable? _life;
    private Func<IReadOnlyList<WaitingDisk>>? _waiting;
    private Action<DiskStallEventArgs>? _tell;
    private Thread? _thread;
    private bool _reported, _over;

    /// <summary>Says whose disks they are, before the guest runs.</summary>
    internal void Attach(IPausable life, Func<IReadOnlyList<WaitingDisk>> waiting, Action<DiskStallEventArgs> tell) =>
        (_life, _waiting, _tell) = (life, waiting, tell);

    /// <summary>A disk began to wait. Its I/O thread: nothing here takes time.</summary>
    internal void Report()
    {
        lock (_gate)
        {
            if (_over)
            {
                return;
            }

            _reported = true;
            Monitor.PulseAll(_gate);
            if (_thread is not null)
            {
                return;
            }

            Thread thread = new(Run, maxStackSize: 256 * 1024) { Name = "disk-stalls", IsBackground = true };
            try
            {
                (starter ?? PlainIoThreads.Instance).Start(thread);
                _thread = thread; // once it runs: it is joined
            }
#pragma warning disable CA1031 // No thread can be had: the disk waits, and the next report or a pause and resume let it go on.
            catch (Exception)
#pragma warning restore CA1031
            {
                return;
            }
        }
    }

    /// <summary>The guest is over: nothing is paused, resumed or told any more when this returns.</summary>
    internal void End()
    {
        Thread? thread;
        lock (_gate)
        {
            _over = true;
            thread = _thread;
            Monitor.PulseAll(_gate);
        }

        thread?.Join();
    }

    private void Run()
    {
        TimeSpan interval = s_first;
        long resumed = 0;
        while (WaitForReport(Timeout.InfiniteTimeSpan, take: true))
        {
            if (Environment.TickCount64 - resumed > 2 * s_longest.TotalMilliseconds)
            {
                interval = s_first;
            }

            // A disk that begins to wait while the machine is paused for another one changes nothing about whose pause it is.
            bool ours = _life!.TryPause(this) || _life.IsPausedBy(this);
            IReadOnlyList<WaitingDisk> waiting = _waiting!();
            Tell(waiting, waits: true);
            if (ours && WaitForSpace(ref interval) && _life.TryResume(this))
            {
                resumed = Environment.TickCount64;
                Tell(waiting, waits: false);
            }
        }
    }

    // True when the machine may go on; false when somebody else let it, there is something else to report, or it is over.
    private bool WaitForSpace(ref TimeSpan interval)
    {
        while (!WaitForReport(interval, take: false) && !IsOver && _life!.IsPausedBy(this))
        {
            interval = interval * 2 < s_longest ? interval * 2 : s_longest;
            if (_waiting!().All(disk => disk.CanGoOn()))
            {
                return true;
            }
        }

        return false;
    }

    private void Tell(IReadOnlyList<WaitingDisk> disks, bool waits)
    {
        foreach (WaitingDisk disk in disks)
        {
            _tell!(new DiskStallEventArgs(disk.Name, disk.Path, disk.Fault, waits));
        }
    }

    private bool IsOver
    {
        get
        {
            lock (_gate)
            {
                return _over;
            }
        }
    }

    // True when there was a report; false when the time is over, or everything is.
    private bool WaitForReport(TimeSpan patience, bool take)
    {
        lock (_gate)
        {
            while (!_reported && !_over)
            {
                if (!Monitor.Wait(_gate, patience))
                {
                    return false;
                }
            }

            bool reported = _reported && !_over;
            _reported &= !take;
            return reported;
        }
    }
}
