using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>Frames of the guest to the host, straight out of its buffers. One thread; a frame the host has no room for is held, and no other is taken meanwhile.</summary>
internal sealed class NetSender : IDisposable
{
    private const int Eagain = 11, MaxVectors = 1024; // IOV_MAX

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly Virtqueue _ring;
    private readonly INetQueue _queue;
    private readonly NativeArray<IoVector> _vectors = new(MaxVectors);
    private int _count;
    private ulong _length;
    private ushort _head;
    private bool _held, _paid;

    internal NetSender(VirtioNet device, VirtioActivation activation, Virtqueue ring, INetQueue queue)
    {
        _device = device;
        _activation = activation;
        _ring = ring;
        _queue = queue;
    }

    /// <summary>Moves up to <paramref name="budget"/> frames. <see cref="NetProgress.Blocked"/>: the host has no room.</summary>
    public NetProgress Serve(int budget, ref int timeout)
    {
        _ring.DisableNotifications();
        long packets = 0, bytes = 0;
        NetProgress progress = NetProgress.More;
        for (int i = 0; i < budget && progress == NetProgress.More; i++)
        {
            progress = One(ref timeout, ref packets, ref bytes);
        }

        if (packets > 0)
        {
            _device.Counters.Sent(packets, bytes);
        }

        return progress;
    }

    /// <summary>A frame that was not sent counts as never taken.</summary>
    public void GiveBack() => _ring.Untake(_held ? 1 : 0);

    public void Dispose() => _vectors.Dispose();

    private NetProgress One(ref int timeout, ref long packets, ref long bytes)
    {
        if (!_held)
        {
            TakeResult taken = _ring.TryTake(out _head);
            if (taken == TakeResult.Empty)
            {
                return NetProgress.Idle;
            }

            if (taken == TakeResult.Malformed || !Parse())
            {
                return NetProgress.Broken;
            }

            _held = true;
            _paid = false;
        }

        ulong frame = _length - TapQueue.HeaderLength;
        if (!_paid && _device.SendLimiter is { } limiter && !limiter.TryTake(frame, RateLimiter.Now, out int wait))
        {
            timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
            return NetProgress.Throttled;
        }

        _paid = true;
        long written = _count <= MaxVectors ? _queue.Write(_vectors.AddressOf(0), _count) : -1;
        if (written == -Eagain)
        {
            return NetProgress.Blocked;
        }

        if (written < 0)
        {
            _device.Counters.Drop(); // the interface is down or gone, or the header makes no sense to the host
        }
        else
        {
            packets++;
            bytes += (long)frame;
        }

        _held = false;
        _ring.Complete(_head, 0);
        return NetProgress.More;
    }

    // 5.1.6.2: readable buffers only, the header first, in any pieces. What the header asks for is checked by the host's kernel.
    private bool Parse()
    {
        ChainWalker walker = _ring.Walk(_head);
        _count = 0;
        _length = 0;
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (buffer.Writable || !_activation.Memory.TryGetHostAddress(buffer.Address, buffer.Length, out nint host))
            {
                return false;
            }

            if (_count < MaxVectors)
            {
                _vectors.Span[_count] = new IoVector(host, buffer.Length);
            }

            _count++;
            _length += buffer.Length;
        }

        return step == ChainStep.End && _length >= TapQueue.HeaderLength;
    }
}
