using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Virtio.Vsock;

/// <summary>
/// A virtio socket device (virtio 1.2 section 5.10) whose host side is unix sockets: host programs connect to one path and name a port of
/// the guest, the guest's connections to port N of the host go to that path with <c>_N</c>.
/// </summary>
public sealed class VirtioVsock : QueuedDevice
{
    private const ulong FeatureStream = 1; // 5.10.3
    private const int Length = 8;

    private readonly ulong _cid;
    private readonly string _path;
    private readonly UnixListener _listener;
    private readonly Func<uint, UnixStream?>? _dial;
    private bool _moved; // restored and not activated yet

    /// <summary>Makes the device and listens.</summary>
    /// <param name="cid">Context id of the guest, from 3.</param>
    /// <param name="path">Unix socket for host programs, at most 96 bytes.</param>
    /// <param name="name">Names the thread.</param>
    /// <param name="dial">Connects the guest to a port of the host, or answers null soon; null connects to the sockets beside
    /// <paramref name="path"/>.</param>
    /// <param name="listener">Listens already, for that path; owned from here on. Null: the path is bound.</param>
    /// <exception cref="ArgumentOutOfRangeException">The context id is reserved (5.10.4).</exception>
    /// <exception cref="KernelException">The path cannot be listened on, e.g. another VM does.</exception>
    public VirtioVsock(
        ulong cid, string path, string name = "vsock", Func<uint, UnixStream?>? dial = null, UnixListener? listener = null)
        : base(name)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(cid, 3UL);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(cid, (ulong)uint.MaxValue);
        _cid = cid;
        _path = path;
        _dial = dial;
        _listener = listener ?? new UnixListener(path);
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 19;

    /// <inheritdoc/>
    public override SyscallNeeds ThreadNeeds => UnixStream.Needs;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => FeatureStream;

    /// <summary>
    /// Receive, transmit, event. The event queue tells that the host's ends of all connections are gone, after a restore (5.10.6.7).
    /// </summary>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [256, 256, 64];

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        Span<byte> config = stackalloc byte[Length];
        BinaryPrimitives.WriteUInt64LittleEndian(config, _cid);
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            config[offset..Math.Min(Length, offset + data.Length)].CopyTo(data);
        }
    }

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation)
    {
        SocketHost host = new(_listener, _path, _dial);
        bool moved = _moved;
        _moved = false;
        return new VsockQueues(activation, new VsockSwitch(_cid, host), host, moved);
    }

    /// <summary>The host's ends of all connections are gone: the driver is told to drop them (5.10.6.7).</summary>
    public override void Restore(StateReader from) => _moved = true;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (disposing)
        {
            _listener.Dispose();
        }
    }
}
