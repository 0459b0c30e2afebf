using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.VhostUser;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio.Fs;

/// <summary>
/// A shared folder of the host (virtio 1.2 section 5.11): FUSE requests that a virtiofsd in another process serves over vhost-user. Owns
/// the
/// connection.
/// </summary>
public sealed class VirtioFs : VirtioDevice
{
    /// <summary>Longest tag, in bytes (5.11.4).</summary>
    public const int MostTag = 36;

    /// <summary>Rings that a back end must serve: the one of high priority, and one of requests.</summary>
    public const int Rings = 2;

    /// <summary>What a back end must know: what every driver may choose.</summary>
    public const ulong BackEndFeatures = VirtioFeatures.Transport;

    /// <summary>Most pieces that the guest's memory may be in.</summary>
    public const int MostMemoryPieces = VhostUserMessage.MostRegions;

    private const int Length = MostTag + 4;
    private const ushort Size = 1024; // Linux makes no request of more pages than the ring has room for

    private readonly byte[] _config = new byte[Length];
    private readonly VhostUserLink _link;
    private readonly IReadOnlyList<MemoryExtent> _memory;
    private readonly Lock _gate = new();
    private VhostUserPath? _path; // under the gate
    private bool _disposed;

    /// <summary>Makes the device.</summary>
    /// <param name="name">Names its thread, e.g. <c>fs0</c>.</param>
    /// <param name="tag">What the guest mounts: 1 to 36 bytes of UTF-8.</param>
    /// <param name="link">The connection, owned by the device from now on, also when this throws.</param>
    /// <param name="memory">All memory that the guest may ever have.</param>
    /// <exception cref="ArgumentException">Not such a tag.</exception>
    public VirtioFs(string name, string tag, VhostUserLink link, IReadOnlyList<MemoryExtent> memory)
    {
        int length = Encoding.UTF8.GetByteCount(tag);
        if (length is < 1 or > MostTag || tag.Contains('\0', StringComparison.Ordinal))
        {
            link.Dispose();
            throw new ArgumentException($"the tag \"{tag}\" has {length} bytes, expected 1 to {MostTag}", nameof(tag));
        }

        Encoding.UTF8.GetBytes(tag, _config);
        BinaryPrimitives.WriteUInt32LittleEndian(_config.AsSpan(MostTag), Rings - 1);
        (Name, Tag, _link, _memory) = (name, tag, link, memory);
        link.Returned = Wake;
    }

    /// <summary>Its name, e.g. <c>fs0</c>.</summary>
    public string Name { get; }

    /// <summary>What the guest mounts.</summary>
    public string Tag { get; }

    /// <summary>A virtiofsd is there. Any thread.</summary>
    public bool IsConnected => _link.IsConnected;

    /// <summary>How often a virtiofsd was lost. Any thread.</summary>
    public long Losses => _link.Losses;

    /// <inheritdoc/>
    public override ushort DeviceType => 26;

    /// <summary>None: VIRTIO_FS_F_NOTIFICATION (5.11.3) is for back ends that know it, and none does.</summary>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [Size, Size];

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => UnixStream.TransferNeeds;

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
    public override void Activate(VirtioActivation activation)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Reset();
        lock (_gate)
        {
            VhostUserPath path = new(Name, activation, _link, _memory, new FuseOrphan());
            path.Start();
            _path = path;
        }
    }

    /// <inheritdoc/>
    public override void Reset() => TryReset(Timeout.InfiniteTimeSpan);

    /// <inheritdoc/>
    public override bool TryReset(TimeSpan patience)
    {
        VhostUserPath? path = Path;
        path?.Stop();
        if (path?.TryJoin(patience) == false)
        {
            return false;
        }

        path?.Dispose();
        lock (_gate)
        {
            _path = null;
        }

        return true;
    }

    /// <inheritdoc/>
    public override bool TryHold(TimeSpan patience) => Path?.TryHold(patience) ?? true;

    /// <inheritdoc/>
    public override void Resume() => Path?.Resume();

    /// <summary>Refuses: what its inodes and open files are is known to virtiofsd alone.</summary>
    /// <exception cref="StateException">Always.</exception>
    public void ThrowIfSaved() => throw new StateException(
        $"{Name}: the VM has the shared folder {Tag}, and what its guest has open there is known to virtiofsd alone: a VM with shares "
            + "cannot be saved");

    /// <inheritdoc/>
    public override void Save(StateWriter to) => ThrowIfSaved();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && !_disposed)
        {
            _disposed = true;
            Reset();
            _link.Dispose();
        }
    }

    private VhostUserPath? Path
    {
        get
        {
            lock (_gate)
            {
                return _path;
            }
        }
    }

    private void Wake() => Path?.Wake();
}
