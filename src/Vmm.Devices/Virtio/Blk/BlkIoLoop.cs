using System.Diagnostics;
using System.Runtime.CompilerServices;
using Vmm.Interop;
using Vmm.Storage;

[assembly: InternalsVisibleTo("Vmm.Devices.Tests")]

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Serves some queues of a device on the thread that made it. While there is work, doorbells are off and ring and disk are polled: a guest's kick
/// costs an exit of 40 µs and more. Before sleeping the thread polls a little longer when that helps (<see cref="BusyPoll"/>).
/// </summary>
internal sealed class BlkIoLoop : IDisposable
{
    private readonly List<BlkQueue> _queues = [];
    private readonly IDiskQueue _requests;
    private readonly IVirtioInterrupts _interrupts;
    private readonly DiskCompletion[] _finished = new DiskCompletion[64];
    private BusyPoll _poll;
    private TimerFd? _timer; // made by the first request that a rate limit holds back
    private bool _broken;

    internal BlkIoLoop(VirtioBlk device, IDiskBackend disk, VirtioActivation activation, IEnumerable<int> queues, int pollMicroseconds)
    {
        int[] own = [.. queues];
        _interrupts = activation.Interrupts;
        _poll = new BusyPoll(pollMicroseconds);
        _requests = disk.CreateQueue(own.Sum(q => activation.Queues[q]!.Queue.Size));
        foreach (int index in own)
        {
            BlkQueue queue = new(device, disk, activation, index, _queues.Count, _requests);
            _queues.Add(queue);
            _requests.Watch(queue.Doorbell);
        }
    }

    /// <summary>Serves until <paramref name="stop"/> is signalled; then waits for what is in flight.</summary>
    public void Run(EventFd stop, Func<bool> stopping)
    {
        _requests.Watch(stop);
        while (!stopping())
        {
            if (Step())
            {
                _poll.Worked();
            }
            else if (_poll.LookAgain(Stopwatch.GetTimestamp()))
            {
                Thread.SpinWait(4);
            }
            else
            {
                Sleep();
            }
        }

        // The stop event and the guest's doorbells stay signalled now, since nobody takes them.
        while (_requests.InFlight > 0)
        {
            if (!Reap())
            {
                _requests.WaitForCompletion();
            }
        }
    }

    /// <summary>One round: finished requests to the driver, new ones to the disk. True when there was anything.</summary>
    public bool Step()
    {
        // Before the driver sees what is finished: its next request comes at once, and needs no kick while this thread is awake.
        for (int i = 0; i < _queues.Count; i++)
        {
            _queues[i].DisableNotifications();
        }

        bool any = Reap();
        for (int i = 0; i < _queues.Count && !_broken; i++)
        {
            BlkQueue queue = _queues[i];
            if (!queue.Take(out bool took))
            {
                _broken = true; // Requests in flight still end; nothing new is taken until the driver resets the device.
                _interrupts.SetNeedsReset($"virtio-blk queue {queue.Index}: malformed ring or request");
            }

            any |= took;
        }

        if (any)
        {
            _requests.Submit();
            Publish(); // what was refused at once
        }

        return any;
    }

    public void Dispose()
    {
        _requests.Dispose();
        _timer?.Dispose();
        foreach (BlkQueue queue in _queues)
        {
            queue.Dispose();
        }
    }

    private bool Reap()
    {
        int count = _requests.Reap(_finished);
        for (int i = 0; i < count; i++)
        {
            _queues[(int)(_finished[i].Tag >> 32)].Finish((int)(uint)_finished[i].Tag, _finished[i].Status);
        }

        if (count > 0)
        {
            Publish();
        }

        return count > 0;
    }

    private void Publish()
    {
        foreach (BlkQueue queue in _queues)
        {
            if (queue.Publish())
            {
                _interrupts.SignalQueue(queue.Index);
            }
        }
    }

    /// <summary>Lets the next sleep end when a request that a rate limit holds back can be tried again; false when there is none.</summary>
    private bool SetTimer()
    {
        int wait = 0;
        foreach (BlkQueue queue in _queues)
        {
            wait = queue.Wait > 0 && (wait == 0 || queue.Wait < wait) ? queue.Wait : wait;
        }

        if (wait == 0)
        {
            return false;
        }

        if (_timer is null)
        {
            _timer = new TimerFd();
            _requests.Watch(_timer.Event);
        }

        _timer.Set(wait);
        return true;
    }

    private void Sleep()
    {
        bool arrived = false;
        if (!_broken)
        {
            foreach (BlkQueue queue in _queues)
            {
                arrived |= queue.EnableNotifications();
            }
        }

        if (arrived)
        {
            return;
        }

        bool throttled = SetTimer();
        long before = Stopwatch.GetTimestamp();
        _requests.Wait();
        foreach (BlkQueue queue in _queues)
        {
            queue.Doorbell.TryTake(out _);
        }

        if (throttled)
        {
            _timer!.Event.TryTake(out _);
            return; // the length of this sleep says nothing about the guest
        }

        _poll.Slept(Stopwatch.GetTimestamp() - before);
    }
}
