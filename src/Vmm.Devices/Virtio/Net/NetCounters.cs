namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// What a network device has moved, from the guest's side: received is towards the guest. Bytes are of frames, without the virtio header.
/// </summary>
public sealed class NetCounters
{
    private long _receivedPackets, _receivedBytes, _sentPackets, _sentBytes, _dropped;

    /// <summary>Frames given to the guest.</summary>
    public long ReceivedPackets => Volatile.Read(ref _receivedPackets);

    /// <summary>Bytes given to the guest.</summary>
    public long ReceivedBytes => Volatile.Read(ref _receivedBytes);

    /// <summary>Frames the host took from the guest.</summary>
    public long SentPackets => Volatile.Read(ref _sentPackets);

    /// <summary>Bytes the host took from the guest.</summary>
    public long SentBytes => Volatile.Read(ref _sentBytes);

    /// <summary>Frames lost here: refused by the host (interface down, a bad header), or larger than the guest's buffers.</summary>
    public long Dropped => Volatile.Read(ref _dropped);

    internal void Received(long packets, long bytes)
    {
        Interlocked.Add(ref _receivedPackets, packets);
        Interlocked.Add(ref _receivedBytes, bytes);
    }

    internal void Sent(long packets, long bytes)
    {
        Interlocked.Add(ref _sentPackets, packets);
        Interlocked.Add(ref _sentBytes, bytes);
    }

    internal void Drop() => Interlocked.Increment(ref _dropped);
}
