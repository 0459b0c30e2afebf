using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.VhostUser;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Fs;

/// <summary>
/// A shared folder of the host (virtio 1.2 section 5.11): FUSE requests that a virtiofsd in another process serves over vhost-user.
/// </summary>
public sealed class VirtioFs : VhostUserDevice
{
    /// <summary>Longest tag, in bytes (5.11.4).</summary>
    public const int MostTag = 36;

    private const int Rings = 2; // the one of high priority, and one of requests
    private const int Length = MostTag + 4;
    private const ushort Size = 1024; // Linux makes no request of more pages than the ring has room for

    private readonly byte[] _config = new byte[Length];

    /// <summary>Makes the device.</summary>
    /// <param name="name">Names its thread, e.g. <c>fs0</c>.</param>
    /// <param name="tag">What the guest mounts: 1 to 36 bytes of UTF-8.</param>
    /// <param name="link">The connection, owned by the device from now on, also when this throws.</param>
    /// <param name="memory">All memory that the guest may ever have.</param>
    /// <exception cref="ArgumentException">Not such a tag.</exception>
    public VirtioFs(string name, string tag, VhostUserLink link, IReadOnlyList<MemoryExtent> memory)
        : base(name, link, memory, inOrder: true, () => new FuseOrphan(link.Reconnects), counts: true)
    {
        int length = Encoding.UTF8.GetByteCount(tag);
        if (length is < 1 or > MostTag || tag.Contains('\0', StringComparison.Ordinal))
        {
            link.Dispose();
            throw new ArgumentException($"the tag \"{tag}\" has {length} bytes, expected 1 to {MostTag}", nameof(tag));
        }

        Encoding.UTF8.GetBytes(tag, _config);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(MostTag), Rings - 1);
        Tag = tag;
    }

    /// <summary>What a back end must be able to do: what every driver may choose.</summary>
    public static VhostUserNeeds Needs { get; } =
        new() { Features = VirtioFeatures.Transport, Rings = Rings, UsualRings = Rings };

    /// <summary>What the guest mounts.</summary>
    public string Tag { get; }

    /// <summary>Requests that virtiofsd completed, as of the last quarter of a second. Any thread.</summary>
    public long Requests => Link.Completed;

    /// <inheritdoc/>
    public override ushort DeviceType => 26;

    /// <summary>None: VIRTIO_FS_F_NOTIFICATION (5.11.3) is for back ends that know it, and none does.</summary>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [Size, Size];

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            _config.AsSpan(offset, Math.Min(data.Length, Length - offset)).CopyTo(data);
        }
    }

    /// <inheritdoc/>
    public override void ThrowIfSaved() => throw new StateException(
        $"{Name}: the VM has the shared folder {Tag}, and what its guest has open there is known to virtiofsd alone: a VM with shares "
            + "cannot be saved");
}
