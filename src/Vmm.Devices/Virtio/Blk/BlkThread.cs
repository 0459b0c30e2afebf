using Vmm.Io;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>One I/O thread of an activation and its loop.</summary>
internal sealed class BlkThread
{
    private readonly VirtioBlk _device;
    private readonly VirtioActivation _activation;
    private readonly int[] _queues;
    private readonly IoLoop _loop;
    private readonly Thread _thread;
    private BlkService? _service; // of the loop's thread
    private volatile NextDisk? _adopted;

    private BlkThread(string name, VirtioBlk device, VirtioActivation activation, int[] queues, IoLoop loop)
    {
        _device = device;
        _activation = activation;
        _queues = queues;
        _loop = loop;
        _thread = new Thread(Serve) { Name = name, IsBackground = true };
    }

    /// <summary>Starts serving <paramref name="queues"/>.</summary>
    /// <exception cref="Vmm.Interop.KernelException">Out of rings or descriptors.</exception>
    /// <exception cref="OutOfMemoryException">Out of threads; or another exception of <see cref="IIoThreads.Start"/>.</exception>
    internal static BlkThread Start(
        string name, VirtioBlk device, VirtioActivation activation, int[] queues, int pollMicroseconds)
    {
        IoLoop loop = new(pollMicroseconds);
        try
        {
            BlkThread thread = new(name, device, activation, queues, loop);
            activation.Threads.Start(thread._thread);
            return thread;
        }
        catch
        {
            loop.Dispose(); // the thread never ran
            throw;
        }
    }

    /// <summary>Limits what is taken from now on. Any thread.</summary>
    internal void SetLimit(RateLimiter? limiter) => _loop.Post(() => _service?.SetLimit(limiter));

    /// <summary>
    /// Takes nothing more until <see cref="Resume"/>; what is in flight ends. Any thread. The event is set when it has ended, or at once
    /// when the thread is gone.
    /// </summary>
    internal ManualResetEventSlim Hold()
    {
        ManualResetEventSlim drained = new(); // not disposed: the loop may set it after the patience of the caller is over
        if (!_loop.Post(() => HoldNow(drained)))
        {
            drained.Set();
        }

        return drained;
    }

    /// <summary>Ends <see cref="Hold"/>. Any thread.</summary>
    internal void Resume() => _loop.Post(() => _service?.Resume());

    /// <summary>Holds its queues until they go on with another disk, or with the one they have. Any thread.</summary>
    internal NextDisk Prepare(NextDisk next)
    {
        if (!_loop.Post(() => PrepareNow(next)))
        {
            next.Ready.Set();
        }

        return next;
    }

    /// <summary>Lets its queues go on with a disk that is ready. Any thread.</summary>
    /// <returns>Ends when it has no node of the old disk any more.</returns>
    internal Task AdoptAsync(NextDisk next)
    {
        _adopted = next; // its end tells, too, that the old node is closed
        if (!_loop.Post(() => _service?.Adopt(next)))
        {
            next.SetClosed();
        }

        return next.Closed;
    }

    /// <summary>Lets its queues go on with the disk that they have. Any thread.</summary>
    internal void Abandon(NextDisk next) => _loop.Post(() => _service?.Abandon(next));

    /// <summary>
    /// A step of an exchange for a chain of the same files, on the loop's thread. Any thread. False: the thread ends, or has ended; it
    /// closes its node itself.
    /// </summary>
    internal bool Post(Action<BlkService> step) => _loop.Post(() =>
    {
        if (_service is { } service)
        {
            step(service);
        }
    });

    /// <summary>Nothing new is taken; the thread ends when storage has given everything back. Any thread, also again.</summary>
    internal void Stop() => _loop.Stop();

    /// <summary>Waits for the end of the thread. False when it takes longer.</summary>
    internal bool Join(TimeSpan patience) => _thread.Join(patience);

    private void HoldNow(ManualResetEventSlim drained)
    {
        if (_service is { } service)
        {
            service.Hold(drained);
        }
        else
        {
            drained.Set();
        }
    }

    private void PrepareNow(NextDisk next)
    {
        if (_service is { } service)
        {
            service.Prepare(next);
        }
        else
        {
            next.Ready.Set();
        }
    }

    private void Serve()
    {
        ServeToEnd();
        _adopted?.SetClosed();
    }

    private void ServeToEnd()
    {
        try
        {
            using IoLoop loop = _loop;
            using BlkService service = new(_device, _device.SettledDisk, _activation, _queues, loop);
            _service = service;
            _activation.Threads.Ready();
            loop.Run(service);
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _activation.Interrupts.SetNeedsReset($"{_device.Name}: I/O thread failed: {error.Message}");
        }
    }
}
