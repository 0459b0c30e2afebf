using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Devices.Virtio;

/// <summary>Answer of <see cref="IQueueService.Serve"/>.</summary>
internal enum QueueProgress
{
    /// <summary>Everything that could be done is done: sleep until a doorbell, a watched descriptor or <see cref="QueueThread.Wake"/>.</summary>
    Idle,

    /// <summary>More arrived meanwhile: call again before sleeping.</summary>
    Again,

    /// <summary>The driver broke a ring or a chain: NEEDS_RESET, and nothing more until the driver resets the device.</summary>
    Broken,
}

/// <summary>What a device does on its queue thread. Every call comes from that thread.</summary>
internal interface IQueueService
{
    /// <summary>
    /// Takes what is in the rings and gives back what is done. Before it answers <see cref="QueueProgress.Idle"/> it has asked for the doorbells it
    /// waits for (<see cref="Virtqueue.EnableNotifications"/>). Long work looks at <see cref="QueueThread.Stopping"/>.
    /// </summary>
    QueueProgress Serve(QueueThread thread);

    /// <summary>A descriptor watched by <see cref="QueueThread.Watch"/> has events; the watch is over. <see cref="Serve"/> follows.</summary>
    void Ready(ulong tag, PollEvents events) { }

    /// <summary>The thread ends: after a reset, a broken ring or a failure. Guest memory is not touched any more.</summary>
    void Stopped() { }
}

/// <summary>
/// One thread that serves the queues of one activation: sleeps in an io_uring on their doorbells, on descriptors the service watches, and on
/// an eventfd of its own for waking and stopping. Made by Activate, disposed by Reset.
/// </summary>
internal sealed class QueueThread : IDisposable
{
    private const ulong WakeTag = ulong.MaxValue, DoorbellTags = 1UL << 63;

    private readonly string _name;
    private readonly VirtioActivation _activation;
    private readonly IQueueService _service;
    private readonly EventFd _wake = new();
    private readonly Thread _thread;
    private IoUring? _ring;
    private volatile bool _stopping;

    private QueueThread(string name, VirtioActivation activation, IQueueService service)
    {
        _name = name;
        _activation = activation;
        _service = service;
        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name + "-io", IsBackground = true };
    }

    /// <summary>The driver is resetting the device: leave as soon as the request at hand is done.</summary>
    public bool Stopping => _stopping;

    /// <summary>Starts serving every enabled queue of <paramref name="activation"/>.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
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
            thread._wake.Dispose(); // it never ran: there is nothing to join
            throw;
        }
    }

    /// <summary>Makes the service run once more. Any thread, until <see cref="Dispose"/>.</summary>
    public void Wake() => _wake.Signal();

    /// <summary>Calls <see cref="IQueueService.Ready"/> once when <paramref name="file"/> has any of <paramref name="events"/>. Queue thread only; <paramref name="tag"/> is below 2^63.</summary>
    public void Watch(SafeHandle file, PollEvents events, ulong tag) => _ring!.Poll(file, events, tag & ~DoorbellTags);

    /// <summary>Stops and joins the thread.</summary>
    public void Dispose()
    {
        _stopping = true;
        _wake.Signal();
        _thread.Join();
        _wake.Dispose();
    }

    private void Run()
    {
        try
        {
            IoUring ring = IoUringPool.Rent();
            try
            {
                _ring = ring;
                _activation.Threads.Ready();
                Loop(ring);
            }
            finally
            {
                IoUringPool.Return(ring);
            }
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
        }
    }

    private void Loop(IoUring ring)
    {
        Span<IoCompletion> woken = stackalloc IoCompletion[16];
        IReadOnlyList<ActiveQueue?> queues = _activation.Queues;
        ring.PollReadable(_wake.Handle, WakeTag);
        for (int i = 0; i < queues.Count; i++)
        {
            if (queues[i] is { } queue)
            {
                ring.PollReadable(queue.Doorbell.Handle, DoorbellTags + (ulong)i);
            }
        }

        while (!_stopping)
        {
            switch (_service.Serve(this))
            {
                case QueueProgress.Broken:
                    _activation.Interrupts.SetNeedsReset($"{_name}: malformed ring or chain");
                    return;
                case QueueProgress.Again:
                    continue;
                default:
                    ring.SubmitAndWait();
                    break;
            }

            int count = ring.Reap(woken);
            for (int i = 0; i < count; i++)
            {
                ulong tag = woken[i].Tag;
                if ((tag & DoorbellTags) == 0)
                {
                    _service.Ready(tag, (PollEvents)woken[i].Result);
                    continue;
                }

                // Emptied before the next look at the ring, so that a kick after that look wakes the thread again.
                EventFd rung = tag == WakeTag ? _wake : queues[(int)(tag & ~DoorbellTags)]!.Doorbell;
                rung.TryTake(out _);
                ring.PollReadable(rung.Handle, tag);
            }
        }
    }
}
