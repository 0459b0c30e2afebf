using Vmm.Devices.VhostUser;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// A virtio network device (virtio 1.2 section 5.1) whose frames a back end in another process moves over vhost-user: a software switch.
/// One pair of queues. While no back end is there its link is down.
/// </summary>
public sealed class VhostUserNet : VhostUserDevice
{
    private const ulong Checksums = NetFeatures.Checksum | NetFeatures.HostTso4 | NetFeatures.HostTso6 | NetFeatures.HostEcn;
    private const ulong Known = Checksums | NetFeatures.GuestOffloads | NetFeatures.MergeableBuffers; // of those that back ends carry out

    private readonly NetConfig _config;

    /// <summary>Makes the device.</summary>
    /// <param name="name">Names its thread, e.g. <c>vhost-user-net0</c>.</param>
    /// <param name="socket">What is behind it, for messages.</param>
    /// <param name="mac">Address of the guest's side.</param>
    /// <param name="mtu">MTU told to the guest; 0: none.</param>
    /// <param name="queueSize">Descriptors of each queue.</param>
    /// <param name="link">A connection made with <see cref="Needs"/>, owned by the device from now on.</param>
    /// <param name="memory">All memory that the guest may ever have.</param>
    public VhostUserNet(
        string name, string socket, ReadOnlySpan<byte> mac, int mtu, int queueSize, VhostUserLink link, IReadOnlyList<MemoryExtent> memory)
        : base(name, link, memory, inOrder: true, () => null)
    {
        Socket = socket;
        _config = new NetConfig(mac, pairs: 1, mtu);
        QueueSizes = [(ushort)queueSize, (ushort)queueSize];
        RingFeatures = link.BackEndFeatures & VirtioFeatures.Transport;
        ulong offloads = link.BackEndFeatures & Known;
        offloads &= (offloads & NetFeatures.Checksum) != 0 ? ulong.MaxValue : ~Checksums; // 5.1.3.1: the others need it
        offloads &= (offloads & NetFeatures.GuestChecksum) != 0 ? ulong.MaxValue : ~NetFeatures.GuestOffloads;
        link.Require(offloads | RingFeatures);
        DeviceFeatures = offloads | NetFeatures.Mac | NetFeatures.Status | (mtu > 0 ? NetFeatures.Mtu : 0);
    }

    /// <summary>What is behind it, for messages.</summary>
    public string Socket { get; }

    /// <inheritdoc/>
    public override ushort DeviceType => 1;

    /// <inheritdoc/>
    public override ulong DeviceFeatures { get; }

    /// <inheritdoc/>
    public override ulong RingFeatures { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override int ConfigLength => NetConfig.Length;

    /// <summary>What a back end must be able to do.</summary>
    public static VhostUserNeeds Needs { get; } =
        new() { Features = VirtioFeatures.Version1, Rings = 2, UsualRings = 2, CountsRings = false };

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => _config.Read(offset, data);

    /// <inheritdoc/>
    public override void ThrowIfSaved() => throw new StateException(
        $"{Name}: what is behind {Socket} is another program's, which saves nothing with the VM: a VM with a vhost-user-net device cannot "
            + "be saved");

    private protected override void BackEndReturned() => SetLink(up: true);

    private protected override void BackEndLost() => SetLink(up: false);

    private void SetLink(bool up)
    {
        _config.LinkUp = up;
        TellConfigChanged();
    }
}
