using System.Diagnostics;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Devices.Virtio;

/// <summary>
/// One thread that serves the queues of one activation: an <see cref="IoLoop"/> that sleeps on their doorbells and on descriptors that the
/// service watches. Made by Activate, disposed by Reset.
/// </summary>
internal sealed class QueueThread : IIoService, IDisposable
{
    private static readonly Action s_nothing = static () => { };
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20); // at a thread that may have ended meanwhile

    private readonly string _name;
    private readonly VirtioActivation _activation;
    private readonly IQueueService _service;
    private readonly IoLoop _loop;
    private readonly Thread _thread;
    private readonly List<Doorbell> _doorbells = [];
    private readonly Stack<IoPoll> _freePolls = new();
    private volatile bool _stopping, _ended;
    private bool _held, _broken; // of the loop's thread
    private ManualResetEventSlim? _holder; // waits for what is in flight; of the loop's thread

    private QueueThread(string name, VirtioActivation activation, IQueueService service)
    {
        _name = name;
        _activation = activation;
        _service = service;
        _loop = new IoLoop(operations: service.Operations);
        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name + "-io", IsBackground = true };
    }

    /// <summary>The driver is resetting the device: leave as soon as the request at hand is done.</summary>
    public bool Stopping => _stopping;

    /// <inheritdoc/>
    bool IIoService.IsDrained => _loop.InFlight == 0;

    /// <summary>Its loop, for operations of the service. Queue thread only.</summary>
    public IoLoop Loop => _loop;

    /// <summary>Starts serving every enabled queue of <paramref name="activation"/>.</summary>
    /// <exception cref="KernelException">Out of rings or descriptors.</exception>
    /// <exception cref="OutOfMemoryException">Out of threads; or another exception of <see cref="IIoThreads.Start"/>.</exception>
    public static QueueThread Start(string name, VirtioActivation activation, IQueueService service)
    {
        QueueThread thread = new(name, activation, service);
        try
        {
            activation.Threads.Start(thread._thread);
            return thread;
        }
        catch
        {
            thread._loop.Dispose(); // it never ran: there is nothing to join
            throw;
        }
    }

    /// <summary>Makes the service run once more. Any thread.</summary>
    public void Wake() => _loop.Post(s_nothing);

    /// <summary>
    /// Calls <see cref="IQueueService.Ready"/> once when <paramref name="file"/> has any of <paramref name="events"/>. Queue thread only.
    /// </summary>
    public void Watch(SafeHandle file, PollEvents events, ulong tag)
    {
        if (!_freePolls.TryPop(out IoPoll? poll))
        {
            poll = new IoPoll(Ready);
            _loop.Add(poll);
        }

        poll.Token = tag;
        _loop.WatchOnce(poll, file, events);
    }

    /// <summary>
    /// Nothing more is taken until <see cref="Resume"/>, and what was taken is complete or back in the rings. Any thread. False when the
    /// request at hand takes longer than <paramref name="patience"/>; it is held all the same when that is over.
    /// </summary>
    public bool TryHold(TimeSpan patience)
    {
        ManualResetEventSlim held = new(); // not disposed: the loop may set it after the patience is over
        if (!_loop.Post(() => Hold(held)))
        {
            return TryJoin(patience);
        }

        for (long begin = Stopwatch.GetTimestamp(); !held.Wait(s_look);)
        {
            if (_ended)
            {
                return true; // broken: it serves nothing
            }

            if (patience != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(begin) > patience)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Ends <see cref="TryHold"/>. Any thread.</summary>
    public void Resume() => _loop.Post(() => _held = false);

    /// <summary>Tells the thread to end after the request at hand. Any thread, also again.</summary>
    public void Stop()
    {
        _stopping = true;
        _loop.Stop();
    }

    /// <summary>Waits for the end of a thread that was told to stop. False when it takes longer.</summary>
    public bool TryJoin(TimeSpan patience) => _thread.Join(patience);

    /// <summary>Stops and joins the thread.</summary>
    public void Dispose()
    {
        Stop();
        _thread.Join();
    }

    /// <inheritdoc/>
    void IIoService.BeginRound() { }

    /// <inheritdoc/>
    bool IIoService.Serve()
    {
        if (_held || _broken)
        {
            TellHeld();
            return false;
        }

        switch (_service.Serve())
        {
            case QueueProgress.Broken:
                _broken = true;
                _activation.Interrupts.SetNeedsReset($"{_name}: malformed ring or chain");
                _loop.Stop();
                return false;
            case QueueProgress.Again:
                return true;
            default:
                return false;
        }
    }

    // The service asked for its doorbells before it said that it is idle.
    bool IIoService.PrepareSleep() => false;

    // The guest's doorbells may stay signalled now, since nobody takes them.
    void IIoService.Stopping()
    {
        foreach (Doorbell doorbell in _doorbells)
        {
            _loop.Unwatch(doorbell);
        }
    }

    private void Ready(IoPoll poll, PollEvents events)
    {
        _freePolls.Push(poll);
        _service.Ready(poll.Token, events);
    }

    private void Hold(ManualResetEventSlim held)
    {
        if (!_held)
        {
            _held = true;
            _service.Held();
        }

        _holder = held;
        TellHeld();
    }

    // What the service began has ended, and the driver was told.
    private void TellHeld()
    {
        if (_holder is { } held && _loop.InFlight == 0)
        {
            _holder = null;
            held.Set();
        }
    }

    private void Run()
    {
        try
        {
            using IoLoop loop = _loop;
            foreach (ActiveQueue? queue in _activation.Queues)
            {
                if (queue is not null)
                {
                    _doorbells.Add(loop.Watch(queue.Doorbell, rung: null));
                }
            }

            _activation.Threads.Ready();
            _service.Started(this);
            loop.Run(this);
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _activation.Interrupts.SetNeedsReset($"{_name}: queue thread failed: {error.Message}");
        }
        finally
        {
            _service.Stopped();
            _ended = true;
        }
    }
}
