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
    private readonly int _depth;
    private readonly List<Task> _closing = []; // nodes of disks that were exchanged
    private readonly IVirtioInterrupts _interrupts;
    private readonly Doorbell[] _doorbells;
    private IBlockNode _disk;
    private ManualResetEventSlim? _holder; // waits for the end of what is in flight
    private NextDisk? _next; // that the queues are held for
    private SwitchStep? _switch; // likewise
    private Task _drained = Task.CompletedTask;
    private SwitchStep? _nextFlush;
    private bool _broken, _stopping, _closed, _ending, _flushing;

    /// <summary>On the loop's thread.</summary>
    /// <exception cref="BlockException">The host has no resources for it.</exception>
    internal BlkService(VirtioBlk device, IDiskBackend disk, VirtioActivation activation, int[] queues, IoLoop loop)
    {
        _device = device;
        _loop = loop;
        _interrupts = activation.Interrupts;
        _depth = queues.Sum(q => activation.Queues[q]!.Queue.Size);
        _disk = NodeOf(disk);
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

        _stopping = true;
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
        ResumeQueues();
    }

    /// <summary>
    /// Holds the queues for another disk and makes the node of it; it is ready when storage has given everything back. On the loop's
    /// thread.
    /// </summary>
    internal void Prepare(NextDisk next)
    {
        try
        {
            next.Node = NodeOf(next.Disk);
        }
        catch (BlockException cause)
        {
            next.Problem = cause;
            next.Ready.Set();
            return;
        }

        _next = next;
        HoldQueues();
        TellDrained();
    }

    /// <summary>The queues go on with the disk that is ready; the node of the old one is closed meanwhile. On the loop's thread.</summary>
    internal void Adopt(NextDisk next)
    {
        IBlockNode old = _disk;
        _disk = next.Node!;
        next.Node = null;
        _next = null;
        foreach (BlkQueue queue in _queues)
        {
            queue.Forward(_disk);
        }

        SetLimit(_device.Limiter);
        if (_holder is not null || _stopping)
        {
            HoldQueues();
        }

        _closing.Add(CloseAsync(old, next.SetClosed));
        _loop.Submit();
    }

    /// <summary>The queues go on with the disk that they have. On the loop's thread.</summary>
    internal void Abandon(NextDisk next)
    {
        next.Node?.Dispose();
        next.Node = null;
        _next = null;
        ResumeQueues();
    }

    /// <summary>
    /// What was written is stable; the queues go on meanwhile. The step is over with that. On the loop's thread, as all that follows.
    /// </summary>
    internal void Flush(SwitchStep step)
    {
        if (_ending || _closed)
        {
            return; // who waits sees the end of the thread
        }

        if (_flushing)
        {
            _nextFlush = step; // one for which nobody waited any longer is in flight still
            return;
        }

        _flushing = true;
        new NodeFlush(_disk, _loop).Run(status => FlushEnded(step, status));
    }

    private void FlushEnded(SwitchStep step, DiskStatus status)
    {
        _flushing = false;
        step.End(status);
        if (_nextFlush is { } next)
        {
            _nextFlush = null;
            Flush(next);
        }
    }

    /// <summary>Holds the queues. The step is over when storage has given everything back, and all of it is stable.</summary>
    internal void Quiesce(SwitchStep step)
    {
        _switch = step;
        HoldQueues();
        TellDrained();
    }

    /// <summary>Closes the node; the queues are held.</summary>
    internal void CloseDisk(SwitchStep step)
    {
        if (!_ending)
        {
            _closed = true;
            _closing.Add(CloseAsync(_disk, () => step.End(DiskStatus.Ok)));
        }
    }

    /// <summary>Makes the node of another disk; or of one that is lost, which needs nothing of the host.</summary>
    internal void MakeNode(SwitchStep step, IDiskBackend disk, LostDisk? otherwise)
    {
        if (_ending)
        {
            return; // nobody would close it; who waits sees the end of the thread
        }

        try
        {
            _disk = NodeOf(disk);
        }
        catch (BlockException cause)
        {
            step.Problem = cause;
            if (otherwise is null)
            {
                step.End(DiskStatus.IoError);
                return;
            }

            _disk = otherwise.CreateNode(_loop);
        }

        _closed = false;
        foreach (BlkQueue queue in _queues)
        {
            queue.Reassign(_disk);
        }

        step.End(DiskStatus.Ok);
    }

    /// <summary>The queues go on with the disk that there is now, unless somebody else holds them.</summary>
    internal void EndSwitch()
    {
        _switch = null;
        SetLimit(_device.Limiter);
        ResumeQueues();
    }

    // For all requests, and a flush of ours. The log is above whatever the disk is made of.
    private IBlockNode NodeOf(IDiskBackend disk) =>
        _device.Log is { } log ? log.CreateNode(disk, _loop, _depth + 1) : disk.CreateNode(_loop, _depth + 1);

    private async Task CloseAsync(IBlockNode old, Action over)
    {
        try
        {
            await old.FlushAndCloseAsync().ConfigureAwait(false);
        }
        catch (BlockException lost)
        {
            _device.Faults.Failed(lost.Status);
        }

        over();
    }

    private void ResumeQueues()
    {
        if (_holder is not null || _next is not null || _switch is not null || _stopping)
        {
            return; // somebody else holds them
        }

        foreach (BlkQueue queue in _queues)
        {
            queue.Resume();
        }
    }

    private void TellDrained()
    {
        if ((_holder is not null || _next is not null || _switch is not null) && _drained.IsCompleted)
        {
            Publish();
            _holder?.Set();
            _next?.Ready.Set();
            if (_switch?.TryBegin() == true)
            {
                Flush(_switch);
            }
        }
    }

    private void HoldQueues() => _drained = Task.WhenAll(_queues.Select(queue => queue.HoldAsync()));

    /// <summary>
    /// Waits for storage, and leaves nothing that was written in a volatile cache: the driver may be gone without a flush, and a VM that is
    /// told to be over has its disks on stable storage.
    /// </summary>
    public void Dispose()
    {
        _ending = true;
        foreach (BlkQueue queue in _queues)
        {
            queue.Dispose();
        }

        _next?.Node?.Dispose();
        _loop.DeliverUntil(Task.WhenAll(_closing));
        if (_closed)
        {
            return;
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
