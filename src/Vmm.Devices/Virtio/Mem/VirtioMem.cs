using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Mem;

/// <summary>How a virtio-mem device is presented.</summary>
public sealed record VirtioMemOptions
{
    /// <summary>Name for the thread and messages.</summary>
    public string Name { get; init; } = "mem";

    /// <summary>First guest address of the region, a multiple of the block size.</summary>
    public required GuestAddress Start { get; init; }

    /// <summary>How much can be plugged at most, a multiple of the block size.</summary>
    public required ByteSize Length { get; init; }

    /// <summary>What is plugged and unplugged at once, a power of two.</summary>
    public ByteSize BlockSize { get; init; } = ByteSize.MiB(2);

    /// <summary>Proximity domain of the region (SRAT); null when the guest has no NUMA tables.</summary>
    public int? Vnode { get; init; }

    /// <summary>How much the guest is asked to plug at first.</summary>
    public ByteSize Requested { get; init; }
}

/// <summary>What a device was asked for and what came of it, bytes.</summary>
/// <param name="Length">The most it can have.</param>
/// <param name="Requested">What the host asked for last.</param>
/// <param name="Plugged">What the guest has plugged.</param>
/// <param name="Driven">A driver of the guest serves the device.</param>
public readonly record struct VirtioMemInfo(ByteSize Length, ByteSize Requested, ByteSize Plugged, bool Driven);

/// <summary>
/// A virtio memory device (virtio 1.2 section 5.15): a region of guest addresses in which the driver plugs and unplugs blocks of RAM until
/// it has as much as the host asks for. The guest decides which blocks; it can refuse to give some back, and <see cref="Info"/> tells.
/// </summary>
public sealed class VirtioMem : QueuedDevice
{
    private const ulong FeatureAcpiPxm = 1 << 0, FeatureUnpluggedInaccessible = 1 << 1;
    private const int ConfigBytes = 56;

    private readonly VirtioMemOptions _options;
    private readonly MemBlocks _blocks;

    /// <summary>Makes the device; nothing is plugged.</summary>
    /// <exception cref="ArgumentException">The region is not whole blocks.</exception>
    public VirtioMem(VirtioMemOptions options, IPluggableMemory memory)
        : base(options.Name)
    {
        ThreadNeeds = memory.Needs;
        _options = options;
        _blocks = new MemBlocks(options.Start, options.Length, options.BlockSize, memory);
        SetRequested(options.Requested);
        DeviceFeatures = FeatureUnpluggedInaccessible | (options.Vnode is null ? 0 : FeatureAcpiPxm);
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 24;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <summary>Unplugged blocks are no RAM at all for a guest: a driver that does not know so is refused (5.15.4).</summary>
    public override ulong RequiredFeatures => FeatureUnpluggedInaccessible;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64];

    /// <inheritdoc/>
    public override int ConfigLength => ConfigBytes;

    /// <summary>What is plugged and unplugged at once.</summary>
    public ByteSize BlockSize => _options.BlockSize;

    /// <summary>Raised when the guest plugged or unplugged something; any thread.</summary>
    public event EventHandler? Changed;

    /// <summary>Where it stands; any thread.</summary>
    public VirtioMemInfo Info
    {
        get
        {
            lock (Gate)
            {
                return new VirtioMemInfo(
                    _options.Length, new ByteSize(_blocks.RequestedBytes), new ByteSize(_blocks.PluggedBytes), IsServing);
            }
        }
    }

    /// <summary>Asks the guest to have this much plugged, rounded down to blocks, at most the region. Any thread.</summary>
    public void SetRequested(ByteSize bytes)
    {
        lock (Gate)
        {
            ulong wanted = Math.Min(bytes.Bytes, _options.Length.Bytes);
            _blocks.RequestedBytes = wanted - (wanted % _options.BlockSize);
            Interrupts?.SignalConfigChanged();
        }
    }

    /// <summary>The next range of plugged blocks, bytes from the start of the region; false: there is none. Any thread.</summary>
    public bool TryFindPlugged(ulong from, out ulong start, out ulong end)
    {
        lock (Gate)
        {
            return _blocks.TryFindPlugged(from, out start, out end);
        }
    }

    /// <summary>With or without a driver: what is plugged is the guest's RAM in any case.</summary>
    public override void Save(StateWriter to)
    {
        lock (Gate)
        {
            to.Write(DeviceStates.Mem, _blocks.Capture());
        }
    }

    /// <inheritdoc/>
    public override void Restore(StateReader from)
    {
        MemStateV1 state = from.Read(DeviceStates.Mem);
        lock (Gate)
        {
            _blocks.Restore(state);
        }
    }

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        data.Clear();
        Span<byte> config = stackalloc byte[ConfigBytes];
        config.Clear();
        lock (Gate)
        {
            // 5.15.4
            BinaryPrimitives.WriteUInt64LittleEndian(config, _options.BlockSize);
            BinaryPrimitives.WriteUInt16LittleEndian(config[8..], (ushort)(_options.Vnode ?? 0));
            BinaryPrimitives.WriteUInt64LittleEndian(config[16..], _options.Start.Value);
            BinaryPrimitives.WriteUInt64LittleEndian(config[24..], _options.Length);
            BinaryPrimitives.WriteUInt64LittleEndian(config[32..], _options.Length); // usable: all of it, always
            BinaryPrimitives.WriteUInt64LittleEndian(config[40..], _blocks.PluggedBytes);
            BinaryPrimitives.WriteUInt64LittleEndian(config[48..], _blocks.RequestedBytes);
        }

        if (offset is >= 0 and < ConfigBytes)
        {
            config[offset..Math.Min(ConfigBytes, offset + data.Length)].CopyTo(data);
        }
    }

    /// <summary>A reset leaves what is plugged (5.15.7): it is the guest's RAM, and a new driver takes it over or gives it back.</summary>
    private protected override IQueueService? CreateService(VirtioActivation activation) =>
        activation.Queues[0] is not null ? new MemRequests(this, activation) : null;

    /// <summary>Carries out one request; queue thread.</summary>
    internal MemAnswer Do(MemRequest request, out MemRangeState state)
    {
        state = default;
        MemAnswer answer;
        lock (Gate)
        {
            answer = request.Kind switch
            {
                MemRequestKind.Plug => _blocks.Plug(request.Address, request.Blocks),
                MemRequestKind.Unplug => _blocks.Unplug(request.Address, request.Blocks),
                MemRequestKind.UnplugAll => _blocks.UnplugAll(),
                MemRequestKind.State => _blocks.State(request.Address, request.Blocks, out state),
                _ => MemAnswer.Error,
            };
        }

        if (answer == MemAnswer.Ack && request.Kind != MemRequestKind.State)
        {
            Changed?.Invoke(this, EventArgs.Empty);
        }

        return answer;
    }
}
