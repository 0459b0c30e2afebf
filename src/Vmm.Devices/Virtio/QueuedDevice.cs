namespace Vmm.Devices.Virtio;

/// <summary>
/// A device whose queues are served by one thread of its own (<see cref="QueueThread"/>): its life is written here, what its chains mean in
/// an <see cref="IQueueService"/>. A reset or a hold does not wait longer than its caller has patience.
/// </summary>
public abstract class QueuedDevice : VirtioDevice
{
    private QueueThread? _thread; // under the gate

    /// <summary>Makes the device.</summary>
    /// <param name="name">Names its thread and its messages.</param>
    protected QueuedDevice(string name) => Name = name;

    /// <summary>Its name, e.g. <c>rng</c>.</summary>
    public string Name { get; }

    /// <summary>A driver is there and its queues are served. Any thread.</summary>
    public bool IsServing
    {
        get
        {
            lock (Gate)
            {
                return _thread is not null;
            }
        }
    }

    /// <summary>Guards what several threads use. A monitor, so that a derived class can wait on it.</summary>
    protected object Gate { get; } = new();

    /// <summary>How to tell the driver; null without one. Under <see cref="Gate"/>.</summary>
    protected IVirtioInterrupts? Interrupts { get; private set; }

    /// <inheritdoc/>
    public sealed override void Activate(VirtioActivation activation)
    {
        Reset();
        lock (Gate)
        {
            Interrupts = activation.Interrupts;
            if (CreateService(activation) is { } service)
            {
                _thread = QueueThread.Start(Name, activation, service);
            }
        }
    }

    /// <inheritdoc/>
    public sealed override void Reset() => TryReset(Timeout.InfiniteTimeSpan);

    /// <inheritdoc/>
    public sealed override bool TryReset(TimeSpan patience)
    {
        QueueThread? thread;
        lock (Gate)
        {
            thread = _thread;
            Interrupts = null;
        }

        thread?.Stop();
        if (thread?.TryJoin(patience) == false) // outside the lock, which its service takes
        {
            return false;
        }

        lock (Gate)
        {
            _thread = null;
            OnReset();
        }

        return true;
    }

    /// <inheritdoc/>
    public sealed override bool TryHold(TimeSpan patience)
    {
        QueueThread? thread;
        lock (Gate)
        {
            thread = _thread;
        }

        return thread?.TryHold(patience) ?? true;
    }

    /// <inheritdoc/>
    public sealed override void Resume()
    {
        lock (Gate)
        {
            _thread?.Resume();
        }
    }

    /// <summary>What serves one activation; null when the driver enabled no queue that matters. Under <see cref="Gate"/>.</summary>
    private protected abstract IQueueService? CreateService(VirtioActivation activation);

    /// <summary>The driver is gone, and its thread has ended: state of the driver is forgotten. Under <see cref="Gate"/>.</summary>
    protected virtual void OnReset() { }

    /// <summary>Makes the service run once more. Under <see cref="Gate"/>.</summary>
    protected void WakeQueues() => _thread?.Wake();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Reset();
        }
    }
}
