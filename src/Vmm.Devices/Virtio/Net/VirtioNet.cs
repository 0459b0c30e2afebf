using System.Diagnostics;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// A virtio network device (virtio 1.2 section 5.1) in front of a tap or another <see cref="INetBackend"/>. Owns the back end.
/// </summary>
public sealed class VirtioNet : VirtioDevice
{
    private static readonly SyscallNeeds s_vcpuNeeds = TapQueue.SetupNeeds + VhostNet.Needs;

    private readonly INetBackend _backend;
    private readonly VirtioNetOptions _options;
    private readonly NetConfig _config;
    private readonly List<NetPair> _pairs = [];
    private RateLimiter? _receiveLimiter, _sendLimiter;
    private readonly Lock _switch = new(); // who serves the rings: a driver's reset, or a limit that comes
    private VirtioActivation? _activation;
    private volatile KernelPath? _kernel;
    private volatile int _activePairs = 1;
    private int _restoredPairs = 1; // for the next activation
    private bool _held; // under the switch
    private bool _keptFromKernel; // under the switch
    private volatile bool _broken;
    private bool _disposed;

    /// <summary>Presents <paramref name="backend"/> to a guest.</summary>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    public VirtioNet(INetBackend backend, VirtioNetOptions options)
    {
        options.Validate();
        _backend = backend;
        _options = options;
        int pairs = backend.QueueCount;
        _config = new NetConfig(options.Mac.Span, pairs, options.Mtu);
        DeviceFeatures = NetFeatures.For(backend.Offloads, pairs, options.Mtu);
        ushort[] sizes = new ushort[(2 * pairs) + 1];
        Array.Fill(sizes, (ushort)options.QueueSize);
        sizes[^1] = 16; // the control queue: one command at a time
        if (pairs > 1)
        {
            sizes[2] = (ushort)options.QueueSize; // also the control queue of a driver without MQ
        }

        QueueSizes = sizes;
        SetLimit(options.Limit);
        ThreadNeeds = backend.ThreadNeeds + VhostNet.Needs;
        _backend.SetActiveQueues(1);
        _backend.Returning = WakeFromOutside;
    }

    /// <summary>Its name, e.g. <c>net0</c>.</summary>
    public string Name => _options.Name;

    /// <summary>What the device has moved.</summary>
    public NetCounters Counters { get; } = new();

    /// <inheritdoc/>
    public override ushort DeviceType => 1;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds { get; }

    /// <inheritdoc/>
    public override SyscallNeeds VcpuNeeds => s_vcpuNeeds;

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override int ConfigLength => NetConfig.Length;

    /// <summary>Pairs the driver asked to be used; the first ones.</summary>
    internal int ActivePairs => _activePairs;

    /// <summary>Largest payload of a frame that is no segment.</summary>
    internal int Mtu => Math.Max(_options.Mtu, 1500);

    internal bool LinkUp => _config.LinkUp;

    internal int PollMicroseconds => _options.PollMicroseconds;

    internal RateLimiter? ReceiveLimiter => Volatile.Read(ref _receiveLimiter);

    internal RateLimiter? SendLimiter => Volatile.Read(ref _sendLimiter);

    internal INetBackend Backend => _backend;

    internal NetAnnouncement Announcement { get; } = new();

    internal ReadOnlySpan<byte> Mac => _config.Mac;

    /// <summary>The network interface of the host that is behind it; null: there is none.</summary>
    public string? Interface => _backend.Interface;

    /// <summary>The host's kernel moves the frames now; <see cref="Counters"/> stand still meanwhile.</summary>
    public bool InKernel => _kernel is not null;

    /// <summary>
    /// Limits each direction from now on; null is no limit. The kernel's path knows no limits: a device that uses it goes over to its own.
    /// Any thread.
    /// </summary>
    public void SetLimit(RateLimit? limit)
    {
        lock (_switch)
        {
            long now = RateLimiter.Now;
            Volatile.Write(ref _receiveLimiter, RateLimiter.Create(limit, now));
            Volatile.Write(ref _sendLimiter, RateLimiter.Create(limit, now));
            if (_receiveLimiter is not null && _kernel is { } kernel) // a held device has none, and looks at its limit when it goes on
            {
                TakeOver(kernel);
            }
        }
    }

    /// <summary>
    /// Serves the rings itself, so that what is written into guest memory is marked (<c>GuestRam.StartTrackingWrites</c>): the kernel does
    /// not say what it writes. Any thread.
    /// </summary>
    /// <param name="kept">False: the kernel may serve them again.</param>
    public void KeepFromKernel(bool kept)
    {
        lock (_switch)
        {
            _keptFromKernel = kept;
            if (kept && _kernel is { } kernel)
            {
                TakeOver(kernel);
            }
            else if (!kept && _kernel is null && !_held && !_broken && _activation is { } activation)
            {
                TryStopPairs(Timeout.InfiniteTimeSpan);
                StartPath(activation);
            }
        }
    }

    /// <summary>
    /// The kernel cannot go on with the rings: the device's own threads do, and the driver notices nothing. Any thread but the path's own;
    /// a no-op when the path is not in use any more.
    /// </summary>
    internal void LeaveKernel(KernelPath path)
    {
        lock (_switch)
        {
            if (ReferenceEquals(_kernel, path))
            {
                TakeOver(path);
            }
        }
    }

    /// <summary>Under the switch.</summary>
    private void TakeOver(KernelPath kernel)
    {
        kernel.HandOver();
        _kernel = null;
        if (_activation is not { } activation)
        {
            return;
        }

        try
        {
            StartPairs(activation);
        }
#pragma warning disable CA1031 // No threads, no descriptors: this device fails, not the thread that brought the news.
        catch (Exception error)
#pragma warning restore CA1031
        {
            Break($"its own path could not be started: {error.Message}");
        }
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Reset();
        lock (_switch)
        {
            _activation = activation;
            _backend.SetOffloads(NetFeatures.Offloads(activation.Features));
            _activePairs = Math.Min(_restoredPairs, Shape(activation).Pairs);
            _restoredPairs = 1;
            _backend.SetActiveQueues(_activePairs);
            StartPath(activation);
        }
    }

    /// <summary>Who serves the rings from here on: the kernel where it can, threads of ours otherwise. Under the switch.</summary>
    private void StartPath(VirtioActivation activation)
    {
        (int pairs, int control) = Shape(activation);
        _kernel = ReceiveLimiter is null && !_keptFromKernel
            ? KernelPath.TryStart(this, activation, pairs, control, _options.Name + "-vhost", _activePairs)
            : null;
        if (_kernel is null)
        {
            StartPairs(activation);
        }
    }

    /// <summary>Pairs that the driver knows of, and the index of the control queue (-1: none).</summary>
    private (int Pairs, int Control) Shape(VirtioActivation activation)
    {
        bool multiQueue = (activation.Features & NetFeatures.MultiQueue) != 0;
        int pairs = multiQueue ? _backend.QueueCount : 1;
        // 5.1.2: without MQ there is one pair, whatever the device could do, and the control queue comes behind it.
        return (pairs, (activation.Features & NetFeatures.ControlQueue) != 0 ? 2 * pairs : -1);
    }

    private void StartPairs(VirtioActivation activation)
    {
        (int pairs, int control) = Shape(activation);
        for (int i = 0; i < pairs; i++)
        {
            _pairs.Add(new NetPair(this, activation, i, i == 0 ? control : -1, $"{_options.Name}-io{i}"));
        }

        foreach (NetPair pair in _pairs)
        {
            pair.Start();
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        lock (_switch)
        {
            _kernel?.Dispose();
            _kernel = null;
            ResetPairs();
            _config.LinkUp = true; // whether the host's interface is really there, the next read of it says
        }
    }

    /// <inheritdoc/>
    public override bool TryHold(TimeSpan patience)
    {
        lock (_switch)
        {
            if (_kernel is { } kernel)
            {
                kernel.HandOver();
                _kernel = null;
            }

            _held = true;
            return TryStopPairs(patience);
        }
    }

    /// <inheritdoc/>
    public override void Save(StateWriter to) => to.Write(DeviceStates.Net, new NetStateV1 { ActivePairs = _activePairs });

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        int pairs = from.Read(DeviceStates.Net).ActivePairs;
        if (pairs < 1 || pairs > _backend.QueueCount)
        {
            throw new StateException(
                $"{NetStateV1.Kind}: the driver uses {pairs} pairs of queues, the interface has {_backend.QueueCount}");
        }

        _restoredPairs = pairs;
        Announcement.Ask();
    }

    /// <inheritdoc/>
    public override void Resume()
    {
        lock (_switch)
        {
            if (!_held)
            {
                return;
            }

            _held = false;
            if (_activation is { } activation && !_broken)
            {
                TryStopPairs(Timeout.InfiniteTimeSpan); // of a hold that did not come to its end
                StartPath(activation);
            }
        }
    }

    // Each pair gives back to its rings what it has taken and not moved.
    private bool TryStopPairs(TimeSpan patience)
    {
        foreach (NetPair pair in _pairs)
        {
            pair.Stop();
        }

        long begin = Stopwatch.GetTimestamp();
        foreach (NetPair pair in _pairs)
        {
            TimeSpan left = patience == Timeout.InfiniteTimeSpan ? patience : patience - Stopwatch.GetElapsedTime(begin);
            if (!pair.TryJoin(patience == Timeout.InfiniteTimeSpan || left > TimeSpan.Zero ? left : TimeSpan.Zero))
            {
                return false;
            }
        }

        foreach (NetPair pair in _pairs)
        {
            pair.Dispose();
        }

        _pairs.Clear();
        return true;
    }

    private void ResetPairs()
    {
        TryStopPairs(Timeout.InfiniteTimeSpan);
        _held = false;
        _broken = false;
        _activation = null;
        _activePairs = 1;
        _backend.SetActiveQueues(1);
        _backend.SetOffloads(TapOffloads.None);
    }

    /// <summary>The driver's command; on the thread of the first pair. False when there are not that many.</summary>
    internal bool SetActivePairs(int count)
    {
        KernelPath? kernel = _kernel;
        if (count < 1 || count > (kernel is not null ? _backend.QueueCount : _pairs.Count))
        {
            return false;
        }

        _backend.SetActiveQueues(count);
        kernel?.Serve(count);
        _activePairs = count;
        WakeAll();
        return true;
    }

    /// <summary>The host's interface is gone: the guest sees its link go down. From any of the I/O threads.</summary>
    internal void LoseLink()
    {
        if (_config.LinkUp)
        {
            _config.LinkUp = false;
            _activation?.Interrupts.SignalConfigChanged();
        }
    }

    /// <summary>What the guest was told was gone is back. From any of the I/O threads.</summary>
    internal void RegainLink()
    {
        _config.LinkUp = true;
        _activation?.Interrupts.SignalConfigChanged();
    }

    /// <summary>The driver broke a ring: every thread ends, nothing more is taken until the reset.</summary>
    internal void Break(string reason)
    {
        _broken = true;
        foreach (NetPair pair in _pairs)
        {
            pair.Stop(); // first: the driver is not told while other pairs go on
        }

        _activation?.Interrupts.SetNeedsReset($"{_options.Name}: {reason}");
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !_disposed)
        {
            _disposed = true;
            Reset();
            _backend.Dispose();
        }
    }

    private void WakeFromOutside()
    {
        lock (_switch)
        {
            WakeAll();
        }
    }

    private void WakeAll()
    {
        foreach (NetPair pair in _pairs)
        {
            pair.Wake();
        }
    }
}
