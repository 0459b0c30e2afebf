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
/// One queue pair and its thread: looks for work for a while when that helps (<see cref="BusyPoll"/>), then its loop sleeps on what the two
/// directions wait for. Frames of the host that come too densely are left to gather (<see cref="FrameGathering"/>).
/// </summary>
internal sealed class NetPair : IIoService, IDisposable
{
    private const int Budget = 64; // frames of one direction before the other has its turn
    private static readonly Action s_nothing = static () => { };

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly int _index, _controlIndex;
    private readonly INetQueue _queue;
    private readonly ActiveQueue? _receive, _send, _control;
    private readonly IoLoop _loop;
    private readonly IoTimer _retry;
    private readonly IoPoll _frames, _room; // of the host's queue
    private readonly List<Doorbell> _doorbells = [];
    private readonly Thread _thread;
    private NetReceiver? _receiver;
    private NetSender? _sender;
    private NetControl? _controls;
    private FrameGathering _gathering;
    private NetProgress _received, _sent;
    private bool _mayReceive, _emptied; // the host has just said that it has no more frames
    private int _timeout;
    private bool _waitsForFrames, _waitsForRoom; // the ring has the poll
    private bool _gathers, _frameCame, _timeOver; // about the last sleep
    private long _slept; // ticks of it, until it was thought about

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
        _loop = new IoLoop(device.PollMicroseconds, RingOperations.Polls);
        _retry = _loop.AddTimer(() => _timeOver = true);
        _frames = new IoPoll((_, _) => (_waitsForFrames, _frameCame) = (false, true));
        _room = new IoPoll((_, _) => _waitsForRoom = false);
        _loop.Add(_frames);
        _loop.Add(_room);
        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
    }

    /// <inheritdoc/>
    bool IIoService.IsDrained => true; // what it waits for is called off with the loop

    /// <summary>Looking again costs little, and helps, only while the guest is waited for or the host has no frames.</summary>
    bool IIoService.MayLook => _received is NetProgress.Idle or NetProgress.Blocked && _sent == NetProgress.Idle;

    public void Start() => _activation.Threads.Start(_thread);

    /// <summary>Lets the thread end after the frame at hand. Any thread.</summary>
    public void Stop() => _loop.Stop();

    /// <summary>Makes the thread look at the device's state again. Any thread.</summary>
    public void Wake() => _loop.Post(s_nothing);

    /// <summary>
    /// Waits for the end of the thread, which was told to stop; afterwards nothing touches guest memory. False when it takes longer.
    /// </summary>
    public bool TryJoin(TimeSpan patience) => !_thread.IsAlive || _thread.Join(patience);

    /// <summary>After <see cref="TryJoin"/>.</summary>
    public void Dispose()
    {
        if ((_thread.ThreadState & System.Threading.ThreadState.Unstarted) != 0)
        {
            _loop.Dispose();
        }
    }

    /// <inheritdoc/>
    void IIoService.BeginRound() { }

    /// <inheritdoc/>
    bool IIoService.Serve()
    {
        ConsiderSleep();
        if (!_device.LinkUp && _queue.TryReturn())
        {
            _device.RegainLink();
        }

        if (_queue.HasUnsent)
        {
            _queue.Flush();
        }

        int receivedFrames = 0, sentFrames = 0;
        _timeout = -1;
        _mayReceive = _receiver is not null && _index < _device.ActivePairs && _device.LinkUp;
        // Not asked twice in a row: a frame that came since is heard of by the next look, or ends the sleep at once.
        _received = _mayReceive && !_emptied ? _receiver!.Serve(ref _timeout, ref receivedFrames) : NetProgress.Idle;
        _emptied = receivedFrames > 0 && _received == NetProgress.Idle;
        if (_mayReceive && _receiver!.TakePublished())
        {
            _activation.Publish(2 * _index);
        }

        _sent = _sender?.Serve(ref _timeout, ref sentFrames) ?? NetProgress.Idle;
        if (_sender is not null)
        {
            _activation.Publish((2 * _index) + 1);
        }

        bool controlled = _controls?.Serve() ?? true;
        if (_received == NetProgress.Broken || _sent == NetProgress.Broken || !controlled)
        {
            _loop.Stop();
            _device.Break($"queue pair {_index}: malformed ring or chain");
            return false;
        }

        _gathering.Received(receivedFrames);
        return receivedFrames + sentFrames > 0 || _received == NetProgress.More || _sent == NetProgress.More;
    }

    /// <inheritdoc/>
    bool IIoService.PrepareSleep()
    {
        // A doorbell is wanted only by who waits for chains.
        bool starved = _mayReceive && _received == NetProgress.Blocked;
        bool hungry = _send is not null && _sent == NetProgress.Idle;
        bool arrived = starved && _receive!.Queue.EnableNotifications();
        arrived |= hungry && _send!.Queue.EnableNotifications();
        arrived |= _controls?.PrepareSleep() ?? false;
        if (arrived)
        {
            return true;
        }

        bool read = _mayReceive && _device.LinkUp && _received == NetProgress.Idle;
        _gathers = read && _timeout < 0 && !_waitsForFrames && _gathering.Wanted;
        if (read && !_gathers && !_waitsForFrames)
        {
            _waitsForFrames = true;
            _loop.WatchOnce(_frames, _queue.Handle, PollEvents.Readable);
        }

        if ((_sent == NetProgress.Blocked || _queue.HasUnsent) && !_waitsForRoom)
        {
            _waitsForRoom = true;
            _loop.WatchOnce(_room, _queue.Handle, PollEvents.Writable);
        }

        SetTimer();
        _frameCame = _timeOver = false;
        return false;
    }

    /// <inheritdoc/>
    void IIoService.Slept(long ticks) => _slept = ticks;

    // The guest's doorbells may stay signalled now, since nobody takes them.
    void IIoService.Stopping()
    {
        foreach (Doorbell doorbell in _doorbells)
        {
            _loop.Unwatch(doorbell);
        }
    }

    private void SetTimer()
    {
        if (_gathers)
        {
            _retry.SetMicroseconds(FrameGathering.Microseconds);
        }
        else if (_timeout >= 0)
        {
            _retry.Set(_timeout);
        }
        else
        {
            _retry.Clear();
        }
    }

    // What ended a sleep is known when its completions were delivered.
    private void ConsiderSleep()
    {
        if (_slept == 0)
        {
            return;
        }

        if (_gathers)
        {
            _gathering.Gathered(toTheEnd: _timeOver);
        }
        else
        {
            _gathering.Slept(_slept, byFrame: _frameCame);
        }

        _slept = 0;
    }

    private void Run()
    {
        try
        {
            using IoLoop loop = _loop;
            Watch(_receive);
            Watch(_send);
            Watch(_control);
            using NetReceiver? receiver = _receive is null
                ? null
                : new NetReceiver(_device, _activation, _receive.Queue, _queue, Budget, Wake);
            _receiver = receiver;
            _sender = _send is null ? null : new NetSender(_device, _activation, _send.Queue, _queue, Budget, Wake);
            _controls = _control is null ? null : new NetControl(_device, _activation, _controlIndex, Wake);
            _activation.Threads.Ready();
            if (_index == 0)
            {
                _device.Announcement.Send(_device, _queue);
            }

            loop.Run(this);
            receiver?.GiveBack();
            _sender?.GiveBack();
            _controls?.GiveBack();
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _device.Break($"queue pair {_index}: I/O thread failed: {error.Message}");
        }
    }

    private void Watch(ActiveQueue? queue)
    {
        if (queue is not null)
        {
            _doorbells.Add(_loop.Watch(queue.Doorbell, rung: null));
        }
    }
}
