using Vmm.Devices.VhostUser;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// A virtio block device (virtio 1.2 section 5.2) whose disk a back end in another process has, and serves over vhost-user. While none is
/// there the guest's requests wait. One that dies leaves them to the next one, each once, when it keeps the record of requests in flight;
/// without that the device goes on only when nothing was in flight, and needs a reset otherwise.
/// </summary>
public sealed class VhostUserBlk : VhostUserDevice
{
    private readonly VhostUserBlkConfig _config;

    /// <summary>Makes the device.</summary>
    /// <param name="name">Names its thread, e.g. <c>vhost-user-blk0</c>.</param>
    /// <param name="socket">What is behind it, for messages.</param>
    /// <param name="queues">Request queues.</param>
    /// <param name="queueSize">Descriptors of each.</param>
    /// <param name="link">A connection made with <see cref="Needs"/>, owned by the device from now on, also when this throws.</param>
    /// <param name="memory">All memory that the guest may ever have.</param>
    /// <exception cref="VhostUserException">The back end has a configuration that makes no sense.</exception>
    public VhostUserBlk(
        string name, string socket, int queues, int queueSize, VhostUserLink link, IReadOnlyList<MemoryExtent> memory)
        : base(name, link, memory, inOrder: false, () => null)
    {
        Socket = socket;
        QueueSizes = Enumerable.Repeat((ushort)queueSize, queues).ToArray();
        RingFeatures = link.BackEndFeatures & VirtioFeatures.Transport;
        try
        {
            _config = new VhostUserBlkConfig(link.BackEndFeatures, link.FirstConfig.Span, queues, queueSize);
        }
        catch (VhostUserException cause)
        {
            link.Dispose();
            throw new VhostUserException($"{name}: {socket}: {cause.Message}", cause);
        }

        DeviceFeatures = _config.Features;
        link.Require(DeviceFeatures | RingFeatures);
        link.Configured = TakeConfig;
    }

    /// <summary>What is behind it, for messages.</summary>
    public string Socket { get; }

    /// <inheritdoc/>
    public override ushort DeviceType => 2;

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override ulong RingFeatures { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override int ConfigLength => VhostUserBlkConfig.Length;

    /// <summary>The size that the driver is told, in sectors of 512 bytes. Any thread.</summary>
    public ulong Sectors => _config.Sectors;

    /// <summary>What a back end must be able to do.</summary>
    /// <param name="queues">Request queues.</param>
    /// <param name="queueSize">Descriptors of each.</param>
    public static VhostUserNeeds Needs(int queues, int queueSize) => new()
    {
        Features = VirtioFeatures.Version1 | (queues > 1 ? BlkFeatures.MultiQueue : 0),
        Rings = queues,
        UsualRings = 1,
        ConfigLength = VhostUserBlkConfig.Length,
        RecordSize = (ushort)queueSize,
    };

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <inheritdoc/>
    public override void ThrowIfSaved() => throw new StateException(
        $"{Name}: the disk behind {Socket} is another program's, which saves nothing with the VM: a VM with a vhost-user-blk device cannot "
            + "be saved");

    private void TakeConfig(ReadOnlyMemory<byte> config, bool isAnother)
    {
        if (_config.Take(config.Span, mayShrink: !isAnother))
        {
            TellConfigChanged();
        }
    }
}
