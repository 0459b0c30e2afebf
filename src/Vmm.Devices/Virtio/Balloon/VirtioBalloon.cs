using System.Buffers.Binary;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Balloon;

/// <summary>Feature bits of virtio 1.2 section 5.5.3, as masks.</summary>
internal static class BalloonFeatures
{
    public const ulong Statistics = 1UL << 1;
    public const ulong DeflateOnOom = 1UL << 2;
    public const ulong PagePoison = 1UL << 4;
    public const ulong Reporting = 1UL << 5;
}

/// <summary>How a balloon is presented.</summary>
public sealed record VirtioBalloonOptions
{
    /// <summary>Name for the thread and messages.</summary>
    public string Name { get; init; } = "balloon";

    /// <summary>Size asked for at first, in bytes; rounded down to 4 KiB.</summary>
    public ulong TargetBytes { get; init; }

    /// <summary>The driver may take pages back when its guest runs out of memory.</summary>
    public bool DeflateOnOom { get; init; } = true;

    /// <summary>The guest tells about its free pages, and the host takes their memory until they are used again.</summary>
    public bool FreePageReporting { get; init; } = true;

    /// <summary>
    /// How often the guest is asked for its statistics; zero is only when somebody calls <see cref="VirtioBalloon.RequestStatistics"/>.
    /// </summary>
    public TimeSpan StatisticsInterval { get; init; }
}

/// <summary>
/// A virtio memory balloon (virtio 1.2 section 5.5): the host asks for pages by <see cref="SetTarget"/>, the driver gives them, their
/// memory goes back to the host. Whatever the guest says, only pages of its own RAM are given back, and only their content is lost.
/// </summary>
public sealed class VirtioBalloon : QueuedDevice
{
    /// <summary>Number of the queue of statistics.</summary>
    internal const int StatisticsQueue = 2;

    private const int ActualOffset = 4, PoisonOffset = 12, Length = 16;

    private readonly VirtioBalloonOptions _options;
    private readonly byte[] _config = new byte[Length];
    private readonly TimeProvider _clock;
    private ITimer? _timer;
    private BalloonPages? _pages;
    private BalloonStatistics? _statistics;
    private BalloonStateV1? _restored; // for the next activation
    private int _statisticsWanted;
    private int _statisticsHead = -1; // the driver's buffer, kept until the next question; queue thread

    /// <summary>Makes the device.</summary>
    public VirtioBalloon(VirtioBalloonOptions? options = null, TimeProvider? clock = null)
        : base(options?.Name ?? new VirtioBalloonOptions().Name)
    {
        _options = options ?? new VirtioBalloonOptions();
        _clock = clock ?? TimeProvider.System;
        DeviceFeatures = BalloonFeatures.Statistics | BalloonFeatures.PagePoison
            | (_options.DeflateOnOom ? BalloonFeatures.DeflateOnOom : 0)
            | (_options.FreePageReporting ? BalloonFeatures.Reporting : 0);
        QueueSizes = _options.FreePageReporting ? [128, 128, 128, 128, 128] : [128, 128, 128];
        SetTarget(_options.TargetBytes);
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 5;

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <summary>The value the guest fills its free pages with; zero when it does not.</summary>
    internal uint PoisonValue
    {
        get
        {
            lock (Gate)
            {
                return BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(PoisonOffset));
            }
        }
    }

    /// <summary>Asks the guest to give pages until the balloon has this size, or to take back what is more. Any thread.</summary>
    /// <param name="bytes">Size of the balloon in bytes, rounded down to 4 KiB.</param>
    public void SetTarget(ulong bytes)
    {
        lock (Gate)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(_config, (uint)Math.Min(bytes / BalloonPages.PageBytes, uint.MaxValue));
            Interrupts?.SignalConfigChanged();
        }
    }

    /// <summary>Asks the guest for new statistics; they arrive in <see cref="Info"/> when it answers. Any thread.</summary>
    public void RequestStatistics()
    {
        lock (Gate)
        {
            Volatile.Write(ref _statisticsWanted, 1);
            WakeQueues();
        }
    }

    /// <summary>Target, actual size and statistics now. Any thread.</summary>
    public BalloonInfo Info()
    {
        lock (Gate)
        {
            return new BalloonInfo(
                BinaryPrimitives.ReadUInt32LittleEndian(_config) * BalloonPages.PageBytes,
                BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(ActualOffset)) * BalloonPages.PageBytes,
                (ulong)(_pages?.Count ?? 0) * BalloonPages.PageBytes,
                (ulong)(_pages?.DiscardedBytes ?? 0),
                _pages?.Refused ?? 0,
                Volatile.Read(ref _statistics));
        }
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            lock (Gate)
            {
                _config.AsSpan(offset, Math.Min(data.Length, Length - offset)).CopyTo(data);
            }
        }
    }

    /// <inheritdoc/>
    public override void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        lock (Gate)
        {
            for (int i = 0; i < data.Length; i++)
            {
                // 5.5.4: actual and poison_val belong to the driver, num_pages and free_page_hint_cmd_id to the device.
                int at = unchecked(offset + i);
                if (at is (>= ActualOffset and < ActualOffset + 4) or (>= PoisonOffset and < PoisonOffset + 4))
                {
                    _config[at] = data[i];
                }
            }
        }
    }

    /// <inheritdoc/>
    public override void Save(StateWriter to)
    {
        if (!IsServing && _restored is null)
        {
            return; // nothing of a driver is here
        }

        lock (Gate)
        {
            to.Write(DeviceStates.Balloon, new BalloonStateV1
            {
                TargetPages = BinaryPrimitives.ReadUInt32LittleEndian(_config),
                ActualPages = BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(ActualOffset)),
                Poison = BinaryPrimitives.ReadUInt32LittleEndian(_config.AsSpan(PoisonOffset)),
                StatisticsHead = _restored is { } restored ? restored.StatisticsHead : _statisticsHead < 0 ? null : (ushort)_statisticsHead,
            });
        }
    }

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        if (from.TryRead(DeviceStates.Balloon) is { } state)
        {
            if (state.StatisticsHead >= QueueSizes[StatisticsQueue])
            {
                throw new StateException(
                    $"{BalloonStateV1.Kind}: the statistics buffer is chain {state.StatisticsHead} of a queue that is smaller");
            }

            lock (Gate)
            {
                _restored = state;
                Apply(state);
            }
        }
    }

    private void Apply(BalloonStateV1 state)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(_config, state.TargetPages);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(ActualOffset), state.ActualPages);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(PoisonOffset), state.Poison);
    }

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation)
    {
        if (_restored is { } state)
        {
            Apply(state); // the reset before each activation forgot it
            _statisticsHead = state.StatisticsHead ?? -1;
            _restored = null;
        }

        _pages = new BalloonPages(activation.Memory);
        if (_options.StatisticsInterval > TimeSpan.Zero && (activation.Features & BalloonFeatures.Statistics) != 0)
        {
            _timer = _clock.CreateTimer(
                static device => ((VirtioBalloon)device!).RequestStatistics(), this,
                _options.StatisticsInterval, _options.StatisticsInterval);
        }

        return new BalloonQueues(this, activation, _pages);
    }

    /// <inheritdoc/>
    protected override void OnReset()
    {
        _timer?.Dispose();
        _timer = null;
        _pages?.Clear();
        _config.AsSpan(ActualOffset).Clear();
        _statisticsWanted = 0;
        _statisticsHead = -1;
    }

    /// <summary>True when somebody asks and the driver's buffer is here to ask with; queue thread.</summary>
    internal bool TakeQuestion(out ushort head)
    {
        head = (ushort)_statisticsHead;
        if (_statisticsHead < 0 || Interlocked.Exchange(ref _statisticsWanted, 0) == 0)
        {
            return false;
        }

        _statisticsHead = -1;
        return true;
    }

    /// <summary>
    /// The driver's buffer came, with its answer unless it is the first one; queue thread. False when there is one already.
    /// </summary>
    internal bool TryAnswer(ushort head, ReadOnlySpan<byte> entries)
    {
        if (_statisticsHead >= 0)
        {
            return false;
        }

        _statisticsHead = head;
        if (entries.Length >= BalloonStatistics.EntryBytes)
        {
            Volatile.Write(ref _statistics, BalloonStatistics.Parse(entries, _clock.GetUtcNow()));
        }

        return true;
    }
}
