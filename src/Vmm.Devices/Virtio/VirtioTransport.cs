using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>
/// What virtio-pci and virtio-mmio share: status, feature negotiation, queue set-up, activation, reset (virtio 1.2 sections 2.1, 2.2, 3.1).
/// The register windows call it under <see cref="Gate"/>; <see cref="SetNeedsReset"/> and interrupts come from device threads without it.
/// </summary>
public abstract class VirtioTransport : IVirtioInterrupts, IDisposable
{
    /// <summary>Device status bits, virtio 1.2 section 2.1.</summary>
    public const byte StatusDriverOk = 4, StatusFeaturesOk = 8, StatusNeedsReset = 0x40, StatusFailed = 0x80;

    // Long enough for storage that works, on a busy host too. A driver that does not wait for the reset, as 2.4.2 demands, never meets one
    // that is pending then.
    private static readonly TimeSpan s_resetPatience = TimeSpan.FromSeconds(1);

    private readonly GuestMemory _memory;
    private readonly QueueSetup[] _queues;
    private readonly ConfigWindow _config;
    private int _status;
    private bool _active;
    private bool _stopping; // the device was told to stop and has requests in flight still
    private bool _resetPending; // the driver reset the device: the registers follow when it has stopped
    private volatile bool _mayTransfer;
    private ulong _driverFeatures;

    /// <summary>Wraps a device; its doorbells exist from now on.</summary>
    /// <param name="device">The device.</param>
    /// <param name="memory">Guest RAM.</param>
    /// <param name="mayTransfer">It may access guest memory from the start.</param>
    /// <exception cref="KernelException">Out of descriptors; the device is the caller's still.</exception>
    protected VirtioTransport(VirtioDevice device, GuestMemory memory, bool mayTransfer)
    {
        _mayTransfer = mayTransfer;
        Device = device;
        _memory = memory;
        OfferedFeatures = device.DeviceFeatures | VirtioFeatures.Transport;
        _config = new ConfigWindow(device);
        _queues = new QueueSetup[device.QueueSizes.Count];
        try
        {
            for (int i = 0; i < _queues.Length; i++)
            {
                _queues[i] = new QueueSetup(device.QueueSizes[i]);
            }
        }
        catch
        {
            foreach (QueueSetup? queue in _queues)
            {
                queue?.Doorbell.Dispose();
            }

            throw;
        }
    }

    /// <summary>The device behind the transport.</summary>
    public VirtioDevice Device { get; }

    /// <summary>Serializes register access.</summary>
    protected Lock Gate { get; } = new();

    /// <summary>Feature bits the driver may choose from.</summary>
    public ulong OfferedFeatures { get; }

    /// <inheritdoc/>
    public Action<int>? QueueTriggerChanged { get; set; }

    /// <inheritdoc/>
    public virtual EventFd? QueueTrigger(int queue) => null;

    /// <summary>Calls <see cref="QueueTriggerChanged"/>.</summary>
    protected void ChangeQueueTrigger(int queue) => QueueTriggerChanged?.Invoke(queue);

    /// <summary>Number of queues.</summary>
    public int QueueCount => _queues.Length;

    /// <summary>Why the device set NEEDS_RESET the last time; null if it never did.</summary>
    public string? LastFault { get; private set; }

    /// <summary>The status register.</summary>
    public byte Status => (byte)Volatile.Read(ref _status);

    /// <summary>Which 32 feature bits DeviceFeatures shows.</summary>
    protected uint DeviceFeatureSelect { get; set; }

    /// <summary>Which 32 feature bits DriverFeatures takes.</summary>
    protected uint DriverFeatureSelect { get; set; }

    /// <summary>Which queue the queue registers speak of; may be out of range.</summary>
    protected uint QueueSelect { get; set; }

    /// <summary>The selected queue; null when the driver selected one that does not exist.</summary>
    protected QueueSetup? Selected => QueueSelect < (uint)_queues.Length ? _queues[QueueSelect] : null;

    /// <summary>Doorbell of a queue.</summary>
    protected EventFd Doorbell(int queue) => _queues[queue].Doorbell;

    /// <summary>MSI-X vector of a queue; 0xFFFF is none.</summary>
    protected int QueueVector(int queue) => (uint)queue < (uint)_queues.Length ? _queues[queue].Vector : 0xFFFF;

    /// <summary>The selected window of the offered features.</summary>
    protected uint ReadDeviceFeatures() => DeviceFeatureSelect switch
    {
        0 => (uint)OfferedFeatures,
        1 => (uint)(OfferedFeatures >> 32),
        _ => 0,
    };

    /// <summary>The selected window of the accepted features.</summary>
    protected uint ReadDriverFeatures() => DriverFeatureSelect switch
    {
        0 => (uint)_driverFeatures,
        1 => (uint)(_driverFeatures >> 32),
        _ => 0,
    };

    /// <summary>Takes accepted features; ignored once FEATURES_OK is set (3.1.1).</summary>
    protected void WriteDriverFeatures(uint value)
    {
        if ((Status & StatusFeaturesOk) != 0)
        {
            return;
        }

        _driverFeatures = DriverFeatureSelect switch
        {
            0 => (_driverFeatures & 0xFFFF_FFFF_0000_0000) | value,
            1 => (_driverFeatures & 0xFFFF_FFFF) | ((ulong)value << 32),
            _ => _driverFeatures,
        };
    }

    /// <summary>
    /// The driver reads the status register. It is not zero before a reset is done (2.4.1), which takes as long as requests are in flight:
    /// nobody waits for
    /// them here. Under <see cref="Gate"/>.
    /// </summary>
    protected byte ReadStatus()
    {
        if (_resetPending)
        {
            TryFinishReset(TimeSpan.Zero);
        }

        return Status;
    }

    /// <summary>The driver wrote the status register: zero resets, other values may only add bits. Under <see cref="Gate"/>.</summary>
    protected void WriteStatus(byte value)
    {
        if (value == 0)
        {
            TryFinishReset(s_resetPatience);
            return;
        }

        if (_resetPending && !TryFinishReset(TimeSpan.Zero))
        {
            return; // the driver has to wait until it reads zero (2.4.2)
        }

        int now = Status;
        int added = value & ~now & ~StatusNeedsReset;
        ulong required = VirtioFeatures.Version1 | Device.RequiredFeatures;
        if ((added & StatusFeaturesOk) != 0 && ((_driverFeatures & ~OfferedFeatures) != 0 || (_driverFeatures & required) != required))
        {
            added &= ~StatusFeaturesOk; // the driver reads it back and learns (3.1.1 step 6)
        }

        Interlocked.Or(ref _status, added);
        if ((added & StatusDriverOk) != 0)
        {
            Start();
        }
    }

    /// <summary>The device may access guest memory now.</summary>
    protected bool MayTransfer => _mayTransfer;

    /// <summary>
    /// The bus lets the device access guest memory from now on, or not any more: a driver that is ready is served from then on; queues that are in use stop,
    /// and the driver has to reset the device.
    /// </summary>
    protected void SetTransfers(bool allowed)
    {
        lock (Gate)
        {
            _mayTransfer = allowed;
            if (allowed)
            {
                Start();
            }
            else
            {
                Halt("bus mastering was switched off while queues were in use");
            }
        }
    }

    /// <summary>The driver took away what running queues need: they stop, and it has to reset the device.</summary>
    protected void Halt(string reason)
    {
        if (_active)
        {
            _active = false;
            _stopping = !Device.TryReset(s_resetPatience);
            SetNeedsReset(reason);
        }
    }

    private void Start()
    {
        const int Ready = StatusDriverOk | StatusFeaturesOk;
        if (_mayTransfer && !_active && !_stopping && !Gone && (Status & (Ready | StatusNeedsReset)) == Ready)
        {
            Activate();
        }
    }

    /// <summary>The device was unplugged: an access that was under way meanwhile finds nothing here. Read under <see cref="Gate"/>.</summary>
    protected bool Gone { get; private set; }

    /// <summary>Rings a doorbell by register write (no ioeventfd took it).</summary>
    protected void Notify(uint queue)
    {
        lock (Gate)
        {
            if (queue < (uint)_queues.Length && !Gone)
            {
                _queues[queue].Doorbell.Signal();
            }
        }
    }

    /// <summary>The driver reads the device's configuration. Under <see cref="Gate"/>.</summary>
    protected void ReadDeviceConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <summary>The driver writes the device's configuration. Under <see cref="Gate"/>.</summary>
    protected void WriteDeviceConfig(int offset, ReadOnlySpan<byte> data) => _config.Write(offset, data);

    /// <summary>Differs after every change of the device's configuration that the driver can have read a part of (2.5.1). Under <see cref="Gate"/>.</summary>
    protected uint ConfigGeneration => _config.Generation();

    /// <summary>Transport registers back to their first values, after the device stopped.</summary>
    protected virtual void ResetRegisters() { }

    /// <inheritdoc/>
    public abstract void SignalQueue(int queue);

    /// <inheritdoc/>
    public abstract void SignalConfigChanged();

    /// <inheritdoc/>
    public void SetNeedsReset(string reason)
    {
        LastFault = reason;
        Interlocked.Or(ref _status, StatusNeedsReset);
        SignalConfigChanged();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (Gate)
        {
            TryFinishReset(Timeout.InfiniteTimeSpan);
            Gone = true;
        }

        Device.Dispose();
        foreach (QueueSetup queue in _queues)
        {
            queue.Doorbell.Dispose();
        }

        GC.SuppressFinalize(this);
    }

    private void Activate()
    {
        ActiveQueue?[] active = new ActiveQueue?[_queues.Length];
        for (int i = 0; i < _queues.Length; i++)
        {
            QueueSetup setup = _queues[i];
            if (!setup.Enabled)
            {
                continue;
            }

            VirtqueueLayout layout = new(setup.Size, new(setup.Descriptors), new(setup.Driver), new(setup.Device));
            if (!Virtqueue.TryCreate(_memory, layout, _driverFeatures, out Virtqueue? queue, out string? reason) || queue is null)
            {
                SetNeedsReset($"queue {i}: {reason}");
                return;
            }

            active[i] = new ActiveQueue(queue, setup.Doorbell);
        }

        _active = true;
        try
        {
            Device.Activate(new VirtioActivation(_memory, _driverFeatures, active, this) { Threads = Device.Threads });
        }
#pragma warning disable CA1031 // Whatever is missing here (threads, descriptors) is missing to this device, not to the vCPU whose driver asked for it.
        catch (Exception error)
#pragma warning restore CA1031
        {
            Halt($"it could not be started: {error.Message}");
        }
    }

    // True when the device has stopped and the registers are as at first.
    private bool TryFinishReset(TimeSpan patience)
    {
        _stopping |= _active;
        _active = false;
        _resetPending = true;
        if (_stopping && !Device.TryReset(patience))
        {
            return false;
        }

        _stopping = false;
        _resetPending = false;
        Volatile.Write(ref _status, 0);
        _driverFeatures = 0;
        DeviceFeatureSelect = 0;
        DriverFeatureSelect = 0;
        QueueSelect = 0;
        foreach (QueueSetup queue in _queues)
        {
            queue.Reset();
        }

        ResetRegisters();
        return true;
    }

    /// <summary>What the driver said about one queue.</summary>
    protected sealed class QueueSetup(ushort max)
    {
        /// <summary>Greatest size.</summary>
        public ushort Max { get; } = max;

        /// <summary>Size the driver chose.</summary>
        public ushort Size { get; set; } = max;

        /// <summary>The driver enabled it.</summary>
        public bool Enabled { get; set; }

        /// <summary>GPA of the descriptor table.</summary>
        public ulong Descriptors { get; set; }

        /// <summary>GPA of the available ring.</summary>
        public ulong Driver { get; set; }

        /// <summary>GPA of the used ring.</summary>
        public ulong Device { get; set; }

        /// <summary>MSI-X vector; 0xFFFF is none.</summary>
        public int Vector { get; set; } = 0xFFFF;

        /// <summary>The doorbell.</summary>
        public EventFd Doorbell { get; } = new();

        internal void Reset()
        {
            Size = Max;
            Enabled = false;
            Descriptors = Driver = Device = 0;
            Vector = 0xFFFF;
        }
    }
}
