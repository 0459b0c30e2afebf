using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// The data path of a device whose rings the host's kernel serves. The kernel gets the eventfd that is the queue's interrupt, where there
/// is one. What is left here is one thread: it carries out the control queue, and passes on the interrupts of queues that have no such
/// eventfd.
/// </summary>
internal sealed class KernelPath : IMemoryListener, IIoService, IDisposable
{
    // What vhost must do as the driver expects it; everything else of the negotiation is the tap's and ours.
    private const ulong RingFeatures = NetFeatures.MergeableBuffers | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex
        | VirtioFeatures.Version1;

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly IKernelPair[] _pairs;
    private readonly EventFd[] _calls;       // of queues without a trigger
    private readonly EventFd?[] _triggers;   // of the transport; under the gate
    private readonly EventFd _error = new();
    private readonly IoLoop _loop = new(operations: RingOperations.Polls);
    private readonly List<Doorbell> _doorbells = [];
    private readonly ActiveQueue? _control;
    private readonly int _controlIndex;
    private readonly Lock _gate = new();
    private readonly Thread _thread;
    private int _served; // pairs, under the gate
    private bool _closed; // under the gate
    private NetControl? _commands; // of the loop's thread

    private KernelPath(VirtioNet device, VirtioActivation activation, IKernelPair[] pairs, int controlIndex, string name)
    {
        _device = device;
        _activation = activation;
        _pairs = pairs;
        _controlIndex = controlIndex;
        _control = controlIndex >= 0 ? activation.Queues[controlIndex] : null;
        _calls = new EventFd[2 * pairs.Length];
        for (int i = 0; i < _calls.Length; i++)
        {
            _calls[i] = new EventFd();
        }

        _triggers = new EventFd?[_calls.Length];

        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
    }

    /// <summary>Hands the first <paramref name="active"/> pairs over; null when the kernel cannot serve them all, or refuses.</summary>
    internal static KernelPath? TryStart(
        VirtioNet device, VirtioActivation activation, int pairs, int controlIndex, string name, int active)
    {
        IKernelPair[] kernel = new IKernelPair[pairs];
        ulong features = activation.Features & RingFeatures;
        for (int i = 0; i < pairs; i++)
        {
            if (device.Backend.KernelPair(i) is not { } pair || (features & ~pair.Features) != 0 || activation.Queues[2 * i] is null
                || activation.Queues[(2 * i) + 1] is null)
            {
                return null;
            }

            kernel[i] = pair;
        }

        KernelPath path = new(device, activation, kernel, controlIndex, name);
        try
        {
            foreach (IKernelPair pair in kernel)
            {
                pair.SetFeatures(features);
            }

            activation.Memory.Ram.Listeners.Add(path);
            lock (path._gate)
            {
                path.ShowMemory(); // a change that comes now waits, and is told after this
            }

            // All of them here, on a vCPU's thread: further pairs are handed over by the control queue's.
            for (int i = 0; i < path._triggers.Length; i++)
            {
                path._triggers[i] = activation.Interrupts.QueueTrigger(i);
            }

            activation.Interrupts.QueueTriggerChanged = path.FollowTrigger;
            path.Serve(active);
            activation.Threads.Start(path._thread);
            return path;
        }
        catch (KernelException)
        {
            path.Dispose(); // the device's own path takes over, whose checks say what is wrong with a ring
            return null;
        }
        catch
        {
            path.Dispose(); // no thread for it
            throw;
        }
    }

    /// <summary>The driver uses the first <paramref name="pairs"/> pairs. Any thread.</summary>
    /// <exception cref="KernelException">The kernel refused one.</exception>
    internal void Serve(int pairs)
    {
        lock (_gate)
        {
            for (; !_closed && _served < pairs; _served++)
            {
                Hand(_served, 0);
                try
                {
                    Hand(_served, 1);
                }
                catch (KernelException)
                {
                    TakeBack(_served, 0);
                    throw;
                }
            }

            TakeBack(pairs);
        }
    }

    /// <summary>
    /// Takes every ring back into <see cref="Virtqueue"/>, so that another path can go on where the kernel stopped. Not from the thread of
    /// this path.
    /// </summary>
    internal void HandOver() => End(interrupt: true);

    /// <inheritdoc/>
    bool IIoService.IsDrained => true; // what it waits for is called off with the loop

    /// <inheritdoc/>
    void IIoService.BeginRound() { }

    /// <inheritdoc/>
    bool IIoService.Serve()
    {
        if (_commands?.Serve() == false)
        {
            _loop.Stop();
            _device.Break("malformed control queue");
        }

        return false;
    }

    /// <inheritdoc/>
    bool IIoService.PrepareSleep() => _commands?.PrepareSleep() ?? false;

    // What rings from here on is passed on by who stops this.
    void IIoService.Stopping()
    {
        foreach (Doorbell doorbell in _doorbells)
        {
            _loop.Unwatch(doorbell);
        }
    }

    /// <summary>Takes every ring back.</summary>
    public void Dispose() => End(interrupt: false);

    private void End(bool interrupt)
    {
        _activation.Memory.Ram.Listeners.Remove(this);
        _activation.Interrupts.QueueTriggerChanged = null;
        if ((_thread.ThreadState & ThreadState.Unstarted) != 0)
        {
            _loop.Dispose();
        }
        else
        {
            _loop.Stop();
            _thread.Join();
        }

        lock (_gate)
        {
            _closed = true;
            TakeBack(0);
        }

        for (int i = 0; i < _calls.Length; i++)
        {
            if (interrupt && _calls[i].TryTake(out _))
            {
                _activation.Interrupts.SignalQueue(i); // rung while nobody listened any more
            }

            _calls[i].Dispose();
        }

        _error.Dispose();
    }

    private void Hand(int pair, int ring)
    {
        int index = (2 * pair) + ring;
        ActiveQueue active = _activation.Queues[index]!;
        Virtqueue queue = active.Queue;
        if (!queue.Ring.TryGetKernelAddresses(out RingAddresses at))
        {
            throw new KernelException("a ring outside memory", Errno.EFAULT);
        }

        VhostRing parts = new(
            queue.Size, queue.NextAvailable, at.Descriptors, at.Available, at.Used,
            active.Doorbell, _triggers[index] ?? _calls[index], _error);
        _pairs[pair].SetRing(ring, parts);
        _pairs[pair].Serve(ring);
    }

    /// <summary>All but the first <paramref name="pairs"/>; under the gate.</summary>
    private void TakeBack(int pairs)
    {
        while (_served > pairs)
        {
            _served--;
            TakeBack(_served, 0);
            TakeBack(_served, 1);
        }
    }

    private void TakeBack(int pair, int ring)
    {
        ushort next = _pairs[pair].Stop(ring);
        _activation.Queues[(2 * pair) + ring]!.Queue.Restore(next, next); // nothing is in flight: what was taken was given back
    }

    private void FollowTrigger(int queue)
    {
        if (queue >= _triggers.Length)
        {
            return; // the control queue
        }

        try
        {
            lock (_gate)
            {
                EventFd? trigger = _activation.Interrupts.QueueTrigger(queue);
                if (_closed || ReferenceEquals(trigger, _triggers[queue]))
                {
                    return;
                }

                _triggers[queue] = trigger;
                if (queue / 2 < _served)
                {
                    TakeBack(queue / 2, queue % 2);
                    Hand(queue / 2, queue % 2);
                }
            }
        }
        catch (KernelException)
        {
            _device.Break("the kernel did not take a ring back");
        }
    }

    void IMemoryListener.Adding(in GuestRegion region)
    {
        // The kernel learns of it when the driver may use it.
    }

    void IMemoryListener.Added(in GuestRegion region) => FollowMemory();

    void IMemoryListener.Removing(in GuestRegion region)
    {
        // The table is exchanged at once, when the regions are.
    }

    void IMemoryListener.Removed(in GuestRegion region) => FollowMemory();

    private void FollowMemory()
    {
        try
        {
            lock (_gate)
            {
                if (!_closed)
                {
                    ShowMemory();
                }
            }
        }
        catch (KernelException)
        {
            // Memory in more pieces than the kernel's table has room for. Drivers do not recover from NEEDS_RESET: the device goes on by
            // itself.
            _device.LeaveKernel(this);
        }
    }

    private void ShowMemory()
    {
        ReadOnlySpan<GuestRegion> regions = _activation.Memory.RegionSpan;
        VhostRegion[] table = new VhostRegion[regions.Length];
        for (int i = 0; i < table.Length; i++)
        {
            table[i] = new VhostRegion(regions[i].Start.Value, regions[i].Length.Bytes, (ulong)regions[i].HostAddress);
        }

        foreach (IKernelPair pair in _pairs)
        {
            pair.SetMemory(table);
        }
    }

    private void Run()
    {
        try
        {
            using IoLoop loop = _loop;
            _doorbells.Add(loop.Watch(_error, () => _device.Break("the kernel found a malformed ring or chain")));
            for (int i = 0; i < _calls.Length; i++)
            {
                int queue = i;
                _doorbells.Add(loop.Watch(_calls[i], () => _activation.Interrupts.SignalQueue(queue)));
            }

            if (_control is not null)
            {
                _doorbells.Add(loop.Watch(_control.Doorbell, rung: null));
                _commands = new NetControl(_device, _activation, _controlIndex, () => loop.Post(static () => { }));
            }

            _activation.Threads.Ready();
            _device.Announcement.Send(_device, _device.Backend.Queue(0));
            loop.Run(this);
            _commands?.GiveBack();
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _device.Break($"thread of the kernel's path failed: {error.Message}");
        }
    }
}
