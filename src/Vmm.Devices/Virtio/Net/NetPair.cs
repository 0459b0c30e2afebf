using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Devices.Virtio.Net;

/// <summary>What a direction waits for.</summary>
internal enum NetProgress
{
    /// <summary>The other side has nothing: frames of the host, or chains of the guest.</summary>
    Idle,

    /// <summary>The share of this round is used up: there is more.</summary>
    More,

    /// <summary>The place to put it is missing: buffers of the guest, or room in the host's queue.</summary>
    Blocked,

    /// <summary>The rate limit: try again after the given time.</summary>
    Throttled,

    /// <summary>Guest pages are on their way in: try again when they came.</summary>
    Paging,

    /// <summary>The driver broke the ring.</summary>
    Broken,
}

/// <summary>
/// One queue pair and its thread: looks for work for a while when that helps (<see cref="BusyPoll"/>), then sleeps in poll(2) on what the
/// two directions wait for, and on nothing else, so that it never turns in circles. Frames of the host that come too densely are left to
/// gather (<see cref="FrameGathering"/>).
/// </summary>
internal sealed class NetPair : IDisposable
{
    private const int Budget = 64; // frames of one direction before the other has its turn

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly int _index, _controlIndex;
    private readonly INetQueue _queue;
    private readonly ActiveQueue? _receive, _send, _control;
    private readonly EventFd _wake = new();
    private readonly Thread _thread;
    private BusyPoll _poll;
    private FrameGathering _gathering;
    private volatile bool _stopping;

    internal NetPair(VirtioNet device, VirtioActivation activation, int index, int controlIndex, string name)
    {
        _device = device;
        _activation = activation;
        _index = index;
        _controlIndex = controlIndex;
        _queue = device.Backend.Queue(index);
        _receive = activation.Queues[2 * index];
        _send = activation.Queues[(2 * index) + 1];
        _control = controlIndex >= 0 ? activation.Queues[controlIndex] : null;
        _poll = new BusyPoll(device.PollMicroseconds);
        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
    }

    public void Start() => _activation.Threads.Start(_thread);

    /// <summary>Lets the thread end after the frame at hand. Any thread.</summary>
    public void Stop()
    {
        _stopping = true;
        _wake.Signal();
    }

    /// <summary>Makes the thread look at the device's state again. Any thread.</summary>
    public void Wake() => _wake.Signal();

    /// <summary>
    /// Waits for the end of the thread, which was told to stop; afterwards nothing touches guest memory. False when it takes longer.
    /// </summary>
    public bool TryJoin(TimeSpan patience) => !_thread.IsAlive || _thread.Join(patience);

    /// <summary>After <see cref="TryJoin"/> of every pair: one that ends may still wake the others.</summary>
    public void Dispose() => _wake.Dispose();

    private void Run()
    {
        try
        {
            using NetReceiver? receiver = _receive is null
                ? null
                : new NetReceiver(_device, _activation, _receive.Queue, _queue, Budget, Wake);
            NetSender? sender = _send is null ? null : new NetSender(_device, _activation, _send.Queue, _queue, Budget, Wake);
            NetControl? control = _control is null ? null : new NetControl(_device, _activation, _controlIndex, Wake);
            _activation.Threads.Ready();
            Loop(receiver, sender, control);
            receiver?.GiveBack();
            sender?.GiveBack();
            control?.GiveBack();
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _device.Break($"queue pair {_index}: I/O thread failed: {error.Message}");
        }
    }

    private void Loop(NetReceiver? receiver, NetSender? sender, NetControl? control)
    {
        while (!_stopping)
        {
            int timeout = -1, receivedFrames = 0, sentFrames = 0;
            bool mayReceive = receiver is not null && _index < _device.ActivePairs && _device.LinkUp;
            NetProgress received = mayReceive ? receiver!.Serve(ref timeout, ref receivedFrames) : NetProgress.Idle;
            if (mayReceive && receiver!.TakePublished())
            {
                _activation.Publish(2 * _index);
            }

            NetProgress sent = sender?.Serve(ref timeout, ref sentFrames) ?? NetProgress.Idle;
            if (sender is not null)
            {
                _activation.Publish((2 * _index) + 1);
            }

            bool controlled = control?.Serve() ?? true;

            if (received == NetProgress.Broken || sent == NetProgress.Broken || !controlled)
            {
                _device.Break($"queue pair {_index}: malformed ring or chain");
                return;
            }

            _gathering.Received(receivedFrames);
            if (receivedFrames + sentFrames > 0)
            {
                _poll.Worked();
            }
            else if (received != NetProgress.More && sent != NetProgress.More && !MayLook(received, sent))
            {
                Sleep(control, mayReceive, received, sent, timeout);
            }
        }
    }

    /// <summary>Looking again costs little, and helps, only while the guest is waited for or the host has no frames.</summary>
    private bool MayLook(NetProgress received, NetProgress sent)
    {
        if (received is not (NetProgress.Idle or NetProgress.Blocked) || sent != NetProgress.Idle || !_poll.LookAgain(Stopwatch.GetTimestamp()))
        {
            return false;
        }

        Thread.SpinWait(4);
        return true;
    }

    private void Sleep(NetControl? control, bool mayReceive, NetProgress received, NetProgress sent, int timeout)
    {
        // A doorbell is wanted only by who waits for chains.
        bool starved = mayReceive && received == NetProgress.Blocked;
        bool hungry = _send is not null && sent == NetProgress.Idle;
        bool arrived = starved && _receive!.Queue.EnableNotifications();
        arrived |= hungry && _send!.Queue.EnableNotifications();
        arrived |= control?.PrepareSleep() ?? false;
        if (arrived)
        {
            return;
        }

        bool read = mayReceive && _device.LinkUp && received == NetProgress.Idle, write = sent == NetProgress.Blocked;
        bool gather = read && timeout < 0 && _gathering.Wanted;
        Span<PollEntry> entries =
        [
            new(_wake.Handle, read: true),
            new(starved ? _receive!.Doorbell.Handle : null, read: true),
            new(hungry ? _send!.Doorbell.Handle : null, read: true),
            new(_control?.Doorbell.Handle, read: true),
            new((read && !gather) || write ? _queue.Handle : null, read && !gather, write),
        ];
        long before = Stopwatch.GetTimestamp();
        bool ended = Poll.WaitMicroseconds(entries, gather ? FrameGathering.Microseconds : timeout < 0 ? -1 : timeout * 1000L) == 0;
        long slept = Stopwatch.GetTimestamp() - before;
        if (timeout < 0 && !gather)
        {
            _poll.Slept(slept); // what ends a sleep for another reason says nothing about guest and host
        }

        if (gather)
        {
            _gathering.Gathered(toTheEnd: ended);
        }
        else
        {
            _gathering.Slept(slept, byFrame: read && entries[^1].Readable);
        }

        // Emptied before the next look at the rings, so that a kick after that look wakes the thread again.
        Empty(_wake, entries[0]);
        Empty(_receive?.Doorbell, entries[1]);
        Empty(_send?.Doorbell, entries[2]);
        Empty(_control?.Doorbell, entries[3]);
    }

    private static void Empty(EventFd? rung, in PollEntry entry)
    {
        if (entry.Readable)
        {
            rung?.TryTake(out _);
        }
    }
}
