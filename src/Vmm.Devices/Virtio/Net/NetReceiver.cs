using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Frames of the host into the guest's buffers. Chains are taken ahead of the frames until they hold the largest frame there can be, and a frame is
/// read straight into them; what it does not fill stays for the next. With less room than that a frame goes through a buffer here, so that one which
/// does not fit yet waits instead of being lost. One thread.
/// </summary>
internal sealed class NetReceiver : IDisposable
{
    private const int Eagain = 11, MaxVectors = 1024, LargestSegment = 65535 + 14; // IOV_MAX; a TSO frame
    private const int FlagsAt = 0, BuffersAt = 10;

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly Virtqueue _ring;
    private readonly INetQueue _queue;
    private readonly bool _mergeable, _keepsFlags;
    private readonly int _needed;
    private readonly Chain[] _chains;
    private readonly NativeArray<IoVector> _vectors = new(4 * MaxVectors);
    private readonly NativeArray<IoVector> _bounceVector = new(1);
    private NativeArray<byte>? _bounce;
    private int _firstChain, _chainEnd, _firstVector, _vectorEnd, _waiting;
    private long _capacity, _packets, _bytes;
    private bool _published;

    internal NetReceiver(VirtioNet device, VirtioActivation activation, Virtqueue ring, INetQueue queue)
    {
        _device = device;
        _activation = activation;
        _ring = ring;
        _queue = queue;
        _mergeable = (activation.Features & NetFeatures.MergeableBuffers) != 0;
        _keepsFlags = (activation.Features & NetFeatures.GuestChecksum) != 0;
        // 5.1.6.3.1: without segments a driver posts what holds its MTU (and merges what a VLAN tag adds).
        _needed = TapQueue.HeaderLength + ((activation.Features & NetFeatures.GuestSegments) != 0 ? LargestSegment : 14 + device.Mtu + (_mergeable ? 4 : 0));
        _chains = new Chain[ring.Size];
    }

    /// <summary>Moves up to <paramref name="budget"/> frames. <see cref="NetProgress.Blocked"/>: the guest has no room.</summary>
    public NetProgress Serve(int budget, ref int timeout)
    {
        _ring.DisableNotifications();
        _packets = _bytes = 0;
        NetProgress progress = NetProgress.More;
        for (int i = 0; i < budget && progress == NetProgress.More; i++)
        {
            progress = One(ref timeout);
        }

        if (_packets > 0)
        {
            _device.Counters.Received(_packets, _bytes);
        }

        return progress;
    }

    /// <summary>Something was completed since the last call.</summary>
    public bool TakePublished()
    {
        bool published = _published;
        _published = false;
        return published;
    }

    /// <summary>Chains that no frame went into count as never taken.</summary>
    public void GiveBack() => _ring.Untake(_chainEnd - _firstChain);

    public void Dispose()
    {
        _vectors.Dispose();
        _bounceVector.Dispose();
        _bounce?.Dispose();
    }

    private NetProgress One(ref int timeout)
    {
        if (!Fill())
        {
            return NetProgress.Broken;
        }

        if (_firstChain == _chainEnd)
        {
            return NetProgress.Blocked;
        }

        if (_waiting == 0)
        {
            RateLimiter? limiter = _device.ReceiveLimiter;
            if (limiter is not null && !limiter.IsReady(RateLimiter.Now, out int wait))
            {
                timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
                return NetProgress.Throttled;
            }

            long read = Read(out bool inPlace);
            if (read <= TapQueue.HeaderLength)
            {
                if (read != -Eagain)
                {
                    _device.LoseLink();
                }

                return NetProgress.Idle;
            }

            limiter?.Charge((ulong)(read - TapQueue.HeaderLength));
            if (inPlace)
            {
                Finish((int)read);
                return NetProgress.More;
            }

            _waiting = (int)read;
        }

        return Place();
    }

    private long Read(out bool inPlace)
    {
        ref readonly Chain first = ref _chains[_firstChain % _chains.Length];
        int vectors = _mergeable ? _vectorEnd - _firstVector : first.Vectors;
        inPlace = vectors <= MaxVectors && (_mergeable ? _capacity : first.Capacity) >= _needed;
        if (inPlace)
        {
            return _queue.Read(_vectors.AddressOf(_firstVector), vectors);
        }

        _bounce ??= new NativeArray<byte>(TapQueue.HeaderLength + LargestSegment + 4);
        _bounceVector.Span[0] = new IoVector(_bounce.AddressOf(0), (nuint)_bounce.Length);
        return _queue.Read(_bounceVector.AddressOf(0), 1);
    }

    /// <summary>The frame that waits, into the buffers when they hold it.</summary>
    private NetProgress Place()
    {
        long room = _mergeable ? _capacity : _chains[_firstChain % _chains.Length].Capacity;
        if (room < _waiting)
        {
            if (_mergeable && CanTakeMore)
            {
                return NetProgress.Blocked; // the driver can still add buffers
            }

            _waiting = 0;
            _device.Counters.Drop();
            return NetProgress.More;
        }

        Span<byte> rest = _bounce!.Span[.._waiting];
        for (int i = _firstVector; rest.Length > 0; i++)
        {
            IoVector vector = _vectors.Span[i];
            int part = (int)Math.Min(vector.Length, (nuint)rest.Length);
            rest[..part].CopyTo(HostSpan.Bytes(vector.Base, part));
            rest = rest[part..];
        }

        Finish(_waiting);
        _waiting = 0;
        return NetProgress.More;
    }

    /// <summary>Takes chains until they hold the largest frame. False when the driver broke the ring.</summary>
    private bool Fill()
    {
        while (_mergeable ? _capacity < Math.Max(_needed, _waiting) && CanTakeMore : _firstChain == _chainEnd)
        {
            TakeResult taken = _ring.TryTake(out ushort head);
            if (taken != TakeResult.Taken)
            {
                return taken == TakeResult.Empty;
            }

            if (!Add(head))
            {
                return false;
            }
        }

        return true;
    }

    private bool CanTakeMore => _chainEnd - _firstChain < _ring.Size && _vectorEnd - _firstVector <= MaxVectors;

    private bool Add(ushort head)
    {
        if (_vectorEnd > 2 * MaxVectors)
        {
            // Room for the longest chain behind what is there: at most 1024 + 1 vectors of it.
            Span<IoVector> all = _vectors.Span;
            all[_firstVector.._vectorEnd].CopyTo(all);
            (_firstVector, _vectorEnd) = (0, _vectorEnd - _firstVector);
        }

        ChainWalker walker = _ring.Walk(head);
        int start = _vectorEnd;
        long capacity = 0;
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (!buffer.Writable || _vectorEnd == _vectors.Length || !_activation.Memory.TryGetHostAddress(buffer.Address, buffer.Length, out nint host))
            {
                return false;
            }

            _vectors.Span[_vectorEnd++] = new IoVector(host, buffer.Length);
            capacity += buffer.Length;
        }

        // 5.1.6.3.1: every buffer holds at least the header.
        if (step == ChainStep.Malformed || capacity < TapQueue.HeaderLength)
        {
            return false;
        }

        _chains[_chainEnd++ % _chains.Length] = new Chain(head, _vectorEnd - start, capacity);
        _capacity += capacity;
        return true;
    }

    /// <summary>A frame lies in the first chains: completes its header (5.1.6.4.1) and gives them back.</summary>
    private void Finish(int bytes)
    {
        int chains = 0;
        for (long covered = 0; covered < bytes; chains++)
        {
            covered += _chains[(_firstChain + chains) % _chains.Length].Capacity;
        }

        Span<byte> number = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(number, (ushort)chains);
        PutHeaderByte(BuffersAt, number[0]);
        PutHeaderByte(BuffersAt + 1, number[1]);
        if (!_keepsFlags)
        {
            PutHeaderByte(FlagsAt, 0);
        }

        long left = bytes;
        for (int i = 0; i < chains; i++)
        {
            Chain chain = _chains[_firstChain % _chains.Length];
            long written = Math.Min(left, chain.Capacity);
            _ring.Complete(chain.Head, (uint)written);
            left -= written;
            _capacity -= chain.Capacity;
            _firstVector += chain.Vectors;
            _firstChain++;
        }

        if (_firstChain == _chainEnd)
        {
            _firstChain = _chainEnd = _firstVector = _vectorEnd = 0;
        }
        else if (_firstChain >= _chains.Length)
        {
            _firstChain -= _chains.Length;
            _chainEnd -= _chains.Length;
        }

        _published = true;
        _packets++;
        _bytes += bytes - TapQueue.HeaderLength;
    }

    private void PutHeaderByte(int at, byte value)
    {
        for (int i = _firstVector; ; i++)
        {
            IoVector vector = _vectors.Span[i];
            if ((nuint)at < vector.Length)
            {
                HostSpan.Bytes(vector.Base + at, 1)[0] = value;
                return;
            }

            at -= (int)vector.Length;
        }
    }

    private readonly record struct Chain(ushort Head, int Vectors, long Capacity);
}
