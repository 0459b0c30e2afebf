using System.Runtime.CompilerServices;
using Vmm.Io;
using Vmm.Storage;

[assembly: InternalsVisibleTo("Vmm.Devices.Tests")]

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Serves some queues of a device on a loop. While there is work, doorbells are off and rings and disk are polled: a guest's kick costs an
/// exit of 40 µs and more.
/// </summary>
internal sealed class BlkService : IIoService, IDisposable
{
    private readonly BlkQueue[] _queues;
    private readonly IoLoop _loop;
    private readonly VirtioBlk _device;
    private readonly IBlockNode _disk;
    private readonly IVirtioInterrupts _interrupts;
    private readonly Doorbell[] _doorbells;
    private ManualResetEventSlim? _holder; // waits for the end of what is in flight
    private Task _drained = Task.CompletedTask;
    private bool _broken;

    /// <summary>On the loop's thread.</summary>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    internal BlkService(VirtioBlk device, IDiskBackend disk, VirtioActivation activation, int[] queues, IoLoop loop)
    {
        _device = device;
        _loop = loop;
        _interrupts = activation.Interrupts;
        _disk = disk.CreateNode(loop, queues.Sum(q => activation.Queues[q]!.Queue.Size));
        _queues = [.. queues.Select(q => new BlkQueue(device, _disk, activation, q, loop))];
        _doorbells = [.. _queues.Select(queue => loop.Watch(queue.Doorbell, rung: null))];
        SetLimit(device.Limiter);
    }

    public bool IsDrained => Array.TrueForAll(_queues, queue => queue.IsDrained);

    /// <summary>Limits what is taken from now on, and what is held. On the loop's thread.</summary>
    internal void SetLimit(RateLimiter? limiter)
    {
        IRequestGate? gate = limiter is null ? null : new LimitGate(limiter, _disk);
        foreach (BlkQueue queue in _queues)
        {
            queue.Limit(gate);
        }
    }

    // Before the driver sees what is finished: its next request comes at once, and needs no kick while this thread is awake.
    public void BeginRound()
    {
        foreach (BlkQueue queue in _queues)
        {
            queue.DisableNotifications();
        }
    }

    public bool Serve()
    {
        Publish();
        TellDrained();
        bool any = false;
        for (int i = 0; i < _queues.Length && !_broken; i++)
        {
            BlkQueue queue = _queues[i];
            if (!queue.Take(out bool took))
            {
                _broken = true; // Requests in flight still end; nothing new is taken until the driver resets the device.
                _interrupts.SetNeedsReset($"virtio-blk queue {queue.Index}: malformed ring or request");
            }

            any |= took;
        }

        return any;
    }

    public bool PrepareSleep()
    {
        bool arrived = false;
        for (int i = 0; i < _queues.Length && !_broken; i++)
        {
            arrived |= _queues[i].EnableNotifications();
        }

        return arrived;
    }

    // The guest's doorbells may stay signalled now, since nobody takes them: they would end every sleep at once.
    public void Stopping()
    {
        foreach (Doorbell doorbell in _doorbells)
        {
            _loop.Unwatch(doorbell);
        }

        HoldQueues();
    }

    /// <summary>
    /// Takes nothing more; <paramref name="drained"/> is set when storage has given everything back and the driver was told. On the loop's
    /// thread.
    /// </summary>
    internal void Hold(ManualResetEventSlim drained)
    {
        _holder = drained;
        HoldQueues();
        TellDrained();
    }

    /// <summary>Ends <see cref="Hold"/>.</summary>
    internal void Resume()
    {
        _holder = null;
        foreach (BlkQueue queue in _queues)
        {
            queue.Resume();
        }
    }

    private void TellDrained()
    {
        if (_holder is { } waiting && _drained.IsCompleted)
        {
            Publish();
            waiting.Set();
        }
    }

    private void HoldQueues() => _drained = Task.WhenAll(_queues.Select(queue => queue.HoldAsync()));

    /// <summary>
    /// Waits for storage, and leaves nothing that was written in a volatile cache: the driver may be gone without a flush, and a VM that is
    /// told to be over has its disks on stable storage.
    /// </summary>
    public void Dispose()
    {
        foreach (BlkQueue queue in _queues)
        {
            queue.Dispose();
        }

        try
        {
            _disk.FlushAndClose(_loop);
        }
        catch (BlockException lost)
        {
            _device.Faults.Failed(lost.Status);
        }
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
}
