using System.Text;
using Vmm.Interop;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>A virtio block device (virtio 1.2 section 5.2) in front of a disk. Owns the disk.</summary>
public sealed class VirtioBlk : VirtioDevice
{
    private readonly IDiskBackend _disk;
    private readonly VirtioBlkOptions _options;
    private readonly BlkConfig _config;
    private readonly byte[] _id = new byte[20];
    private readonly List<Thread> _threads = [];
    private readonly List<EventFd> _stops = [];
    private RateLimiter? _limiter;
    private volatile bool _stopping;
    private bool _disposed;

    /// <summary>Presents <paramref name="disk"/> to a guest.</summary>
    /// <param name="disk">What is behind it.</param>
    /// <param name="options">How it is presented; null is the usual.</param>
    /// <param name="faulted">
    /// Hears that the host fails its requests (<see cref="DiskStatus.NoSpace"/>, <see cref="DiskStatus.IoError"/>): once per kind and episode. An episode ends
    /// when a write succeeds again, and lasts a minute at least. Called on an I/O thread: it must be quick.
    /// </param>
    /// <exception cref="ArgumentException">An option is out of range.</exception>
    public VirtioBlk(IDiskBackend disk, VirtioBlkOptions? options = null, Action<DiskStatus>? faulted = null)
    {
        Faults = new DiskFaultEpisodes(faulted, TimeProvider.System);
        _disk = disk;
        _options = options ?? new VirtioBlkOptions();
        _options.Validate();
        _config = new BlkConfig(disk, _options);
        DeviceFeatures = BlkFeatures.For(disk, _options.QueueCount);
        QueueSizes = Enumerable.Repeat((ushort)_options.QueueSize, _options.QueueCount).ToArray();
        Encoding.ASCII.GetBytes(_options.Serial, _id);
    }

    /// <summary>Its name, e.g. <c>disk0</c>.</summary>
    public string Name => _options.Name;

    /// <summary>What the disk has done.</summary>
    public BlkCounters Counters { get; } = new();

    /// <inheritdoc/>
    public override ushort DeviceType => 2;

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

    /// <summary>Limits reads and writes together from now on; null is no limit. Any thread.</summary>
    public void SetLimit(RateLimit? limit) => Volatile.Write(ref _limiter, RateLimiter.Create(limit, RateLimiter.Now));

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data) => _config.Write(offset, data);

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Stop();
        for (int t = 0; t < _options.IoThreads; t++)
        {
            int index = t;
            int[] queues = [.. Enumerable.Range(0, activation.Queues.Count).Where(q => q % _options.IoThreads == index && activation.Queues[q] is not null)];
            if (queues.Length == 0)
            {
                continue;
            }

            EventFd stop = new();
            Thread thread = new(() => Serve(activation, queues, index, stop))
            {
                Name = $"{_options.Name}-io{index}",
                IsBackground = true,
            };
            _stops.Add(stop);
            activation.Threads.Start(thread);
            _threads.Add(thread); // once it runs: what is in the list is joined
        }
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        Stop();
        _config.Writeback = true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !_disposed)
        {
            _disposed = true;
            Stop();
            _disk.Dispose();
        }
    }

    private void Stop()
    {
        _stopping = true;
        foreach (EventFd stop in _stops)
        {
            stop.Signal();
        }

        foreach (Thread thread in _threads)
        {
            thread.Join();
        }

        foreach (EventFd stop in _stops)
        {
            stop.Dispose();
        }

        _threads.Clear();
        _stops.Clear();
        _stopping = false;
    }

    private void Serve(VirtioActivation activation, int[] queues, int index, EventFd stop)
    {
        try
        {
            using BlkIoLoop loop = new(this, _disk, activation, queues, _options.PollMicroseconds);
            activation.Threads.Ready();
            loop.Run(stop, () => _stopping);
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            activation.Interrupts.SetNeedsReset($"{_options.Name}: I/O thread failed: {error.Message}");
        }
    }
}
