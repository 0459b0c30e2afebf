using System.Diagnostics;
using System.Globalization;
using System.Text;
using Vmm.Interop;
using Vmm.State;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>A virtio block device (virtio 1.2 section 5.2) in front of a disk. Owns the disk.</summary>
public sealed class VirtioBlk : VirtioDevice
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20); // at a thread that may have ended meanwhile

    private volatile IDiskBackend _disk; // changed under the gate
    private readonly VirtioBlkOptions _options;
    private readonly BlkConfig _config;
    private readonly byte[] _id = new byte[20];
    private readonly Lock _gate = new();
    private readonly List<BlkThread> _threads = [];
    private readonly ManualResetEventSlim _settled = new(initialState: true); // not set while the disk is another one soon
    private RateLimiter? _limiter;
    private IVirtioInterrupts? _interrupts; // of the activation; under the gate
    private bool _grownUnseen; // since the driver read the configuration, perhaps; under the gate
    private bool _restoredWriteback = true; // for the next activation
    private bool _disposed;

    /// <summary>Presents <paramref name="disk"/> to a guest.</summary>
    /// <param name="disk">What is behind it.</param>
    /// <param name="options">How it is presented; null is the usual.</param>
    /// <param name="faulted">
    /// Hears that the host fails its requests (<see cref="DiskStatus.NoSpace"/>, <see cref="DiskStatus.IoError"/>): once per kind and
    /// episode. An episode ends when a write succeeds again, and lasts a minute at least. Called on an I/O thread: it must be quick.
    /// </param>
    /// <param name="stalled">
    /// Hears that the disk waits, as <see cref="VirtioBlkOptions.Waits"/> says: failed requests are kept, and issued again, each once, by
    /// <see cref="Resume"/>; whoever hears of it brings the device to rest first. Called on an I/O thread: it must be quick.
    /// </param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    /// <exception cref="BlockException">The disk is not whole logical blocks.</exception>
    public VirtioBlk(
        IDiskBackend disk,
        VirtioBlkOptions? options = null,
        Action<DiskStatus>? faulted = null,
        Action<DiskStatus>? stalled = null)
    {
        Faults = new DiskFaultEpisodes(faulted, TimeProvider.System);
        _disk = disk;
        _options = options ?? new VirtioBlkOptions();
        _options.Validate();
        if (disk.Geometry.CapacityBytes % (ulong)(_options.LogicalBlockSize ?? 512) != 0)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"{Name} has {disk.Geometry.CapacityBytes} bytes, which is no whole number of "
                + $"blocks of {_options.LogicalBlockSize} bytes: choose another logicalBlockSize, or make it larger");
        }

        Stall = new DiskStall(_options.Waits, stalled);
        Counters = new BlkCounters(_options.QueueCount);
        _config = new BlkConfig(disk.Geometry, _options);
        DeviceFeatures = BlkFeatures.For(disk.Geometry, _options.QueueCount);
        QueueSizes = Enumerable.Repeat((ushort)_options.QueueSize, _options.QueueCount).ToArray();
        Encoding.ASCII.GetBytes(_options.Serial, _id);
        disk.OnGeometryChanged(Grow);
    }

    /// <summary>Its name, e.g. <c>disk0</c>.</summary>
    public string Name => _options.Name;

    /// <summary>What the disk has done.</summary>
    public BlkCounters Counters { get; }

    /// <inheritdoc/>
    public override string? Work => string.Create(
        CultureInfo.InvariantCulture, $"{Counters.InFlight} requests in flight, {Counters.Held} held");

    /// <inheritdoc/>
    public override ushort DeviceType => 2;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => BlockFile.Needs;

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override int ConfigLength => BlkConfig.Length;

    internal RateLimiter? Limiter => Volatile.Read(ref _limiter);

    internal DiskFaultEpisodes Faults { get; }

    internal DiskStall Stall { get; }

    /// <summary>
    /// What the disk waits for: <see cref="DiskStatus.NoSpace"/> or <see cref="DiskStatus.IoError"/>; <see cref="DiskStatus.Ok"/> when it
    /// does not. Any thread.
    /// </summary>
    public DiskStatus WaitsFor => Stall.Reason;

    /// <summary>Whether what it waits for may be over, as far as can be seen. Any thread.</summary>
    public bool CanGoOn => _disk.CanGoOn(WaitsFor);

    internal bool Writeback => _config.Writeback;

    internal ReadOnlySpan<byte> Id => _id;

    /// <summary>What a driver that negotiated <paramref name="features"/> may ask for.</summary>
    internal BlkBounds Bounds(ulong features) => new(_config, features);

    /// <summary>Limits requests of all kinds together from now on; null is no limit. Any thread.</summary>
    public void SetLimit(RateLimit? limit)
    {
        RateLimiter? limiter = RateLimiter.Create(limit, RateLimiter.Now);
        Volatile.Write(ref _limiter, limiter);
        lock (_gate)
        {
            foreach (BlkThread thread in _threads)
            {
                thread.SetLimit(limiter);
            }
        }
    }

    /// <summary>Looks again how large the disk is, or makes it larger; the driver hears of what it grew by. Any thread.</summary>
    /// <param name="bytes">The size to grow to, for a disk whose size is its own; null: only look.</param>
    /// <returns>The size that the driver is told, in bytes.</returns>
    /// <exception cref="BlockException">It cannot be looked at, has shrunk, or does not grow.</exception>
    public ulong RefreshCapacity(ulong? bytes = null)
    {
        if (bytes is { } wanted)
        {
            _disk.Enlarge(wanted);
        }
        else
        {
            _disk.Refresh();
        }

        return _config.CapacityBytes;
    }

    /// <summary>What is behind it now.</summary>
    public IDiskBackend Disk => _disk;

    /// <summary>The log of what is written; null: there is none. Owned. <see cref="DiskLogging"/> changes it.</summary>
    public ChangeLog? Log { get; internal set; }

    /// <summary>
    /// Puts another disk of the same size behind the device, which owns that one from then on; the old one is the caller's. The driver
    /// notices nothing but a moment without answers. Any thread, one at a time.
    /// </summary>
    /// <param name="next">The new disk.</param>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <param name="commit">Called when nothing is in flight, right before the new disk counts; when it throws, the old one
    /// stays.</param>
    /// <returns>Ends when nobody uses the old disk any more.</returns>
    /// <exception cref="TimeoutException">Storage took longer: the device goes on with the old disk.</exception>
    /// <exception cref="BlockException">The host has no resources for the new disk: the device goes on with the old one.</exception>
    public Task ExchangeAsync(IDiskBackend next, TimeSpan patience, Action? commit = null) => new DiskExchange(_gate, _threads).RunAsync(
        next,
        patience,
        () =>
        {
            commit?.Invoke();
            _disk = next;
            next.OnGeometryChanged(Grow);
            Grow(); // it may have grown while nobody listened
        });

    /// <summary>
    /// The disk for a thread that starts, on that thread: it waits when the files have no disk at this moment (<see cref="DiskSwitch"/>).
    /// Whoever changes the disk after this finds the thread.
    /// </summary>
    internal IDiskBackend SettledDisk
    {
        get
        {
            _settled.Wait();
            return _disk;
        }
    }

    /// <summary>Looks at the threads, which do not change meanwhile.</summary>
    internal T WithThreads<T>(Func<List<BlkThread>, T> look)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            return look(_threads);
        }
    }

    /// <summary>Threads that start wait for <see cref="Settle"/>. Within <see cref="WithThreads"/>.</summary>
    internal void Unsettle() => _settled.Reset();

    /// <summary>This disk is the device's.</summary>
    internal void Settle(IDiskBackend disk)
    {
        lock (_gate)
        {
            _disk = disk;
            disk.OnGeometryChanged(Grow);
            _settled.Set();
        }

        Grow();
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => _config.Write(offset, data);

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Reset();
        _config.Writeback = _restoredWriteback;
        _restoredWriteback = true;
        Announce(activation.Interrupts);
        for (int t = 0; t < _options.IoThreads; t++)
        {
            int index = t;
            int[] queues = [.. Enumerable.Range(0, activation.Queues.Count)
                .Where(q => q % _options.IoThreads == index && activation.Queues[q] is not null)];
            if (queues.Length > 0)
            {
                lock (_gate)
                {
                    // Together: whoever exchanges the disk finds this thread, or it begins with the new one.
                    _threads.Add(BlkThread.Start(
                        $"{_options.Name}-io{index}", this, activation, queues, _options.PollMicroseconds));
                }
            }
        }
    }

    /// <summary>
    /// Waits for storage without a limit. What was written and not flushed is made stable; when that fails it is told of as other faults
    /// are.
    /// </summary>
    public override void Reset() => TryReset(Timeout.InfiniteTimeSpan);

    /// <inheritdoc/>
    public override bool TryReset(TimeSpan patience)
    {
        lock (_gate)
        {
            _interrupts = null;
        }

        Stall.Clear(); // what is kept is forgotten with everything else that the driver gave
        (_disk as DiskMirror)?.ForgetAnswers();
        foreach (BlkThread thread in _threads)
        {
            thread.Stop();
        }

        long begin = Stopwatch.GetTimestamp();
        while (_threads.Count > 0)
        {
            TimeSpan left = patience == Timeout.InfiniteTimeSpan ? patience : patience - Stopwatch.GetElapsedTime(begin);
            if (!_threads[^1].Join(patience == Timeout.InfiniteTimeSpan || left > TimeSpan.Zero ? left : TimeSpan.Zero))
            {
                return false;
            }

            lock (_gate)
            {
                _threads.RemoveAt(_threads.Count - 1);
            }
        }

        _config.Writeback = true;
        return true;
    }

    /// <inheritdoc/>
    public override bool TryHold(TimeSpan patience)
    {
        long begin = Stopwatch.GetTimestamp();
        List<(BlkThread Thread, ManualResetEventSlim Drained)> held = [.. _threads.Select(thread => (thread, thread.Hold()))];
        foreach ((BlkThread thread, ManualResetEventSlim drained) in held)
        {
            while (!drained.Wait(s_look) && !thread.Join(TimeSpan.Zero))
            {
                if (patience != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(begin) > patience)
                {
                    return false;
                }
            }
        }

        return true;
    }

    /// <inheritdoc/>
    public override void Save(StateWriter to)
    {
        ThrowIfWaiting();
        to.Write(DeviceStates.Blk, new BlkStateV1 { Sectors = Sectors, Writeback = _config.Writeback });
    }

    /// <summary>Kept requests are in no ring, and younger ones may be complete: they have no saved form.</summary>
    /// <exception cref="StateException">The disk waits for the host.</exception>
    public void ThrowIfWaiting()
    {
        if (WaitsFor is var fault and not DiskStatus.Ok)
        {
            throw new StateException($"{Name}: requests wait for the host ({(fault == DiskStatus.NoSpace ? "no space" : "I/O errors")}): "
                + "mend that, let the VM go on, and save it then");
        }
    }

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        BlkStateV1 state = from.Read(DeviceStates.Blk);
        if (state.Sectors != Sectors)
        {
            throw new StateException(
                $"{BlkStateV1.Kind}: the disk had {state.Sectors} sectors, here it has {Sectors}: it is another one, or was changed");
        }

        _config.Writeback = _restoredWriteback = state.Writeback;
    }

    // 5.2.5: the driver reads the capacity again after a configuration interrupt.
    private void Grow()
    {
        Log?.Grow(_disk.Geometry.CapacityBytes); // before anybody writes there
        if (!_config.TryGrow(_disk.Geometry.CapacityBytes))
        {
            return;
        }

        lock (_gate)
        {
            _grownUnseen = _interrupts is null;
            _interrupts?.SignalConfigChanged();
        }
    }

    // A driver reads the capacity before it is ready for interrupts: one in between is repeated.
    private void Announce(IVirtioInterrupts interrupts)
    {
        lock (_gate)
        {
            _interrupts = interrupts;
            if (_grownUnseen)
            {
                _grownUnseen = false;
                interrupts.SignalConfigChanged();
            }
        }
    }

    private ulong Sectors => _config.CapacityBytes / 512;

    /// <inheritdoc/>
    public override void Resume()
    {
        Stall.Clear();
        foreach (BlkThread thread in _threads)
        {
            thread.Resume();
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !_disposed)
        {
            lock (_gate)
            {
                _disposed = true; // no switch begins any more
            }

            Reset();
            _settled.Wait(); // one that has begun ends
            _disk.Dispose();
            Log?.Dispose();
            _settled.Dispose();
        }
    }
}
