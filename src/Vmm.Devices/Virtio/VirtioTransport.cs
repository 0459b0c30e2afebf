using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio;

/// <summary>
/// What virtio-pci and virtio-mmio share: status, feature negotiation, queue set-up, activation, reset (virtio 1.2 sections 2.1, 2.2, 3.1).
/// The register windows call it under <see cref="Gate"/>; <see cref="SetNeedsReset"/> and interrupts come from device threads without it.
/// </summary>
public abstract class VirtioTransport : IVirtioInterrupts, IDisposable
{
    /// <summary>Device status bits, virtio 1.2 section 2.1.</summary>
    public const byte StatusDriverOk = 4, StatusFeaturesOk = 8, StatusNeedsReset = 0x40, StatusFailed = 0x80;

    // Long enough for storage that works, on a busy host too: a driver that does not wait, as 2.4.2 demands, never meets a pending reset.
    private static readonly TimeSpan s_resetPatience = TimeSpan.FromSeconds(1);

    private readonly GuestMemory _memory;
    private readonly QueueSetups _queues;
    private readonly ConfigWindow _config;
    private readonly FeatureRegisters _features;
    private int _status;
    private bool _active;
    private bool _stopping; // the device was told to stop and has requests in flight still
    private bool _resetPending; // the driver reset the device: the registers follow when it has stopped
    private volatile bool _mayTransfer;
    private bool _held, _restored; // nothing starts before Resume

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
        _features = new FeatureRegisters(device.DeviceFeatures | device.RingFeatures);
        _config = new ConfigWindow(device);
        _queues = new QueueSetups(device.QueueSizes);
    }

    /// <summary>The device behind the transport.</summary>
    public VirtioDevice Device { get; }

    /// <summary>Serializes register access.</summary>
    protected Lock Gate { get; } = new();

    /// <summary>Feature bits the driver may choose from.</summary>
    public ulong OfferedFeatures => _features.Offered;

    /// <summary>Feature bits as registers. Under <see cref="Gate"/>.</summary>
    private protected FeatureRegisters Features => _features;

    /// <inheritdoc/>
    public Action<int>? QueueTriggerChanged { get; set; }

    /// <inheritdoc/>
    public virtual EventFd? QueueTrigger(int queue) => null;

    /// <summary>Calls <see cref="QueueTriggerChanged"/>.</summary>
    protected void ChangeQueueTrigger(int queue) => QueueTriggerChanged?.Invoke(queue);

    /// <summary>Number of queues.</summary>
    public int QueueCount => _queues.Count;

    /// <summary>Why the device set NEEDS_RESET the last time; null if it never did.</summary>
    public string? LastFault { get; private set; }

    /// <summary>The status register.</summary>
    public byte Status => (byte)Volatile.Read(ref _status);

    /// <summary>Which queue the queue registers speak of; may be out of range.</summary>
    protected uint QueueSelect { get; set; }

    /// <summary>The selected queue; null when the driver selected one that does not exist.</summary>
    protected QueueSetup? Selected => QueueSelect < (uint)_queues.Count ? _queues[(int)QueueSelect] : null;

    /// <summary>Doorbell of a queue.</summary>
    protected EventFd Doorbell(int queue) => _queues[queue].Doorbell;

    /// <summary>MSI-X vector of a queue; 0xFFFF is none.</summary>
    protected int QueueVector(int queue) => (uint)queue < (uint)_queues.Count ? _queues[queue].Vector : 0xFFFF;

    /// <summary>Takes accepted features; ignored once FEATURES_OK is set (3.1.1).</summary>
    protected void WriteDriverFeatures(uint value)
    {
        if ((Status & StatusFeaturesOk) == 0)
        {
            _features.WriteDriver(value);
        }
    }

    /// <summary>
    /// The driver reads the status register. It is not zero before a reset is done (2.4.1), which takes as long as requests are in flight:
    /// nobody waits for them here. Under <see cref="Gate"/>.
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
        if ((added & StatusFeaturesOk) != 0 && (_features.Strange != 0 || (_features.Accepted & required) != required))
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
    /// The bus lets the device access guest memory from now on, or not any more: a driver that is ready is served from then on; queues that
    /// are in use stop, and the driver has to reset the device.
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
        if (_mayTransfer && !_active && !_stopping && !_restored && !Gone && (Status & (Ready | StatusNeedsReset)) == Ready)
        {
            Activate();
        }
    }

    /// <summary>
    /// The device was unplugged: an access that was under way meanwhile finds nothing here. Read under <see cref="Gate"/>.
    /// </summary>
    protected bool Gone { get; private set; }

    /// <summary>Rings a doorbell by register write (no ioeventfd took it).</summary>
    protected void Notify(uint queue)
    {
        lock (Gate)
        {
            if (queue < (uint)_queues.Count && !Gone)
            {
                _queues[(int)queue].Doorbell.Signal();
            }
        }
    }

    /// <summary>The driver reads the device's configuration. Under <see cref="Gate"/>.</summary>
    protected void ReadDeviceConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <summary>The driver writes the device's configuration. Under <see cref="Gate"/>.</summary>
    protected void WriteDeviceConfig(int offset, ReadOnlySpan<byte> data) => _config.Write(offset, data);

    /// <summary>
    /// Differs after every change of the device's configuration that the driver can have read a part of (2.5.1). Under <see cref="Gate"/>.
    /// </summary>
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
        _queues.Dispose();
        GC.SuppressFinalize(this);
    }

    private void Activate()
    {
        if (!_queues.TryActivate(_memory, _features.Accepted, out IReadOnlyList<ActiveQueue?> active, out string? reason))
        {
            SetNeedsReset(reason!);
            return;
        }

        _active = true;
        try
        {
            Device.Activate(new VirtioActivation(_memory, _features.Accepted, active, this) { Threads = Device.Threads });
        }
        // Whatever is missing here (threads, descriptors) is missing to this device, not to the vCPU whose driver asked for it.
#pragma warning disable CA1031
        catch (Exception error)
#pragma warning restore CA1031
        {
            Halt($"it could not be started: {error.Message}");
        }
    }

    /// <summary>Interrupt status and the configuration's vector, for saved state.</summary>
    protected virtual (int InterruptStatus, int ConfigVector) Interrupts
    {
        get => (0, 0xFFFF);
        set { }
    }

    /// <summary>Message vectors there are.</summary>
    protected virtual int Vectors => 0;

    /// <summary>The state for saving; the device is held, or not in use.</summary>
    /// <exception cref="InvalidOperationException">A reset goes on.</exception>
    public VirtioTransportStateV1 Capture()
    {
        lock (Gate)
        {
            if (_resetPending || _stopping)
            {
                throw new InvalidOperationException("the device still stops");
            }

            (int status, int vector) = Interrupts;
            return new VirtioTransportStateV1
            {
                Status = Status,
                Active = _active || _restored,
                DriverFeatures = _features.Accepted,
                DeviceFeatureSelect = _features.DeviceSelect,
                DriverFeatureSelect = _features.DriverSelect,
                QueueSelect = QueueSelect,
                InterruptStatus = (byte)status,
                ConfigVector = (ushort)vector,
                ConfigGeneration = _config.Generation(),
                Queues = _queues.Capture(),
            };
        }
    }

    /// <summary>Takes a saved state, fresh. The device serves nothing before <see cref="Resume"/>.</summary>
    /// <exception cref="StateException">The state does not fit the device.</exception>
    public void Restore(VirtioTransportStateV1 state)
    {
        lock (Gate)
        {
            TransportStateCheck.Require(state, _queues.Count, OfferedFeatures, Vectors);
            _queues.Restore(state.Queues, Vectors);

            Volatile.Write(ref _status, state.Status);
            _restored = state.Active;
            _features.Accepted = state.DriverFeatures;
            (_features.DeviceSelect, _features.DriverSelect) = (state.DeviceFeatureSelect, state.DriverFeatureSelect);
            QueueSelect = state.QueueSelect;
            Interrupts = (state.InterruptStatus & 3, state.ConfigVector);
            _config.Restore(state.ConfigGeneration);
        }
    }

    /// <summary>
    /// Stops serving without a reset, and ends a reset that goes on: the state changes no more then, and can be saved. No vCPU runs. One
    /// call at a time.
    /// </summary>
    /// <param name="patience">How long requests in flight may take.</param>
    /// <returns>False when they take longer: it has to be called again, or <see cref="Resume"/>.</returns>
    public bool TryHold(TimeSpan patience)
    {
        lock (Gate)
        {
            if (_resetPending)
            {
                return TryFinishReset(patience);
            }

            if (_stopping)
            {
                _stopping = !Device.TryReset(patience);
                return !_stopping;
            }

            _held |= _active;
            return !_active || Device.TryHold(patience);
        }
    }

    /// <summary>Ends <see cref="TryHold"/>. A restored device begins to serve its queues, if it served them when it was saved. Any
    /// thread.</summary>
    public void Resume()
    {
        lock (Gate)
        {
            if (_held)
            {
                _held = false;
                Device.Resume();
            }

            if (_restored)
            {
                _restored = false;
                Start();
            }
        }
    }

    /// <summary>Rings every enabled queue on both sides: a signal of the moment of a save may be lost, one too many is harmless.</summary>
    internal void Nudge()
    {
        for (int i = 0; i < _queues.Count && _active; i++)
        {
            if (_queues[i].Enabled)
            {
                _queues[i].Doorbell.Signal();
                SignalQueue(i);
            }
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
        _restored = false;
        _held = false;
        Volatile.Write(ref _status, 0);
        _features.Reset();
        QueueSelect = 0;
        _queues.Reset();

        ResetRegisters();
        return true;
    }
}
