using System.Diagnostics;
using System.Text;
using Vmm.Interop;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>A virtio block device (virtio 1.2 section 5.2) in front of a disk. Owns the disk.</summary>
public sealed class VirtioBlk : VirtioDevice
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20); // at a thread that may have ended meanwhile

    private readonly IDiskBackend _disk;
    private readonly VirtioBlkOptions _options;
    private readonly BlkConfig _config;
    private readonly byte[] _id = new byte[20];
    private readonly Lock _gate = new();
    private readonly List<BlkThread> _threads = [];
    private RateLimiter? _limiter;
    private bool _restoredWriteback = true; // for the next activation
    private bool _disposed;

    /// <summary>Presents <paramref name="disk"/> to a guest.</summary>
    /// <param name="disk">What is behind it.</param>
    /// <param name="options">How it is presented; null is the usual.</param>
    /// <param name="faulted">
    /// Hears that the host fails its requests (<see cref="DiskStatus.NoSpace"/>, <see cref="DiskStatus.IoError"/>): once per kind and
    /// episode. An episode ends when a write succeeds again, and lasts a minute at least. Called on an I/O thread: it must be quick.
    /// </param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    public VirtioBlk(IDiskBackend disk, VirtioBlkOptions? options = null, Action<DiskStatus>? faulted = null)
    {
        Faults = new DiskFaultEpisodes(faulted, TimeProvider.System);
        _disk = disk;
        _options = options ?? new VirtioBlkOptions();
        _options.Validate();
        Counters = new BlkCounters(_options.QueueCount);
        _config = new BlkConfig(disk.Geometry, _options);
        DeviceFeatures = BlkFeatures.For(disk.Geometry, _options.QueueCount);
        QueueSizes = Enumerable.Repeat((ushort)_options.QueueSize, _options.QueueCount).ToArray();
        Encoding.ASCII.GetBytes(_options.Serial, _id);
    }

    /// <summary>Its name, e.g. <c>disk0</c>.</summary>
    public string Name => _options.Name;

    /// <summary>What the disk has done.</summary>
    public BlkCounters Counters { get; }

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

    internal bool Writeback => _config.Writeback;

    internal ReadOnlySpan<byte> Id => _id;

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
        for (int t = 0; t < _options.IoThreads; t++)
        {
            int index = t;
            int[] queues = [.. Enumerable.Range(0, activation.Queues.Count)
                .Where(q => q % _options.IoThreads == index && activation.Queues[q] is not null)];
            if (queues.Length > 0)
            {
                BlkThread thread = BlkThread.Start(
                    $"{_options.Name}-io{index}", this, _disk, activation, queues, _options.PollMicroseconds);
                lock (_gate)
                {
                    _threads.Add(thread);
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
    public override void Save(StateWriter to) =>
        to.Write(DeviceStates.Blk, new BlkStateV1 { Sectors = Sectors, Writeback = _config.Writeback });

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

    private ulong Sectors => _disk.Geometry.CapacityBytes / 512;

    /// <inheritdoc/>
    public override void Resume()
    {
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
            _disposed = true;
            Reset();
            _disk.Dispose();
        }
    }
}
