using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Frames of the host into the guest's buffers. Chains are taken ahead of the frames. As long as frames fit into one chain, a batch of them is read, each
/// into a chain; after one that did not, single frames are read into as many chains as hold the largest there can be. Behind chains that might be too
/// small lies a buffer here: what ends up in it is copied into more chains, and waits for them if need be instead of being lost. One thread.
/// </summary>
internal sealed class NetReceiver : IDisposable
{
    private const int MaxVectors = 1024, LargestSegment = 65535 + 14; // IOV_MAX; a TSO frame
    private const int FlagsAt = 0, BuffersAt = 10;
    private const int LongestPauseLog2 = 7; // milliseconds between reads that fail
    private const int LargeFor = 64; // frames that fit into one chain until batches are read again

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly Virtqueue _ring;
    private readonly INetQueue _queue;
    private readonly bool _mergeable, _keepsFlags;
    private readonly int _needed;
    private readonly Chain[] _chains;
    private readonly TapFrame[] _frames;

    // Of the taken chains; behind the vectors of each there is a free one for the rest of its frame.
    private readonly NativeArray<IoVector> _vectors = new(4 * MaxVectors);
    private readonly NativeArray<IoVector> _group = new(MaxVectors);
    private NativeArray<byte>? _rest;
    private int _firstChain, _chainEnd, _vectorEnd;
    private int _large;
    private int _failures; // reads in a row that failed
    private int _waiting, _waitingInChains, _waitingChains; // a frame whose end lies in _rest: bytes, those in chains, how many chains
    private long _capacity, _packets, _bytes;
    private bool _published;

    internal NetReceiver(VirtioNet device, VirtioActivation activation, Virtqueue ring, INetQueue queue, int batch)
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
        _frames = new TapFrame[Math.Min(batch, (int)ring.Size)];
    }

    private int Chains => _chainEnd - _firstChain;

    private ref Chain First(int offset) => ref _chains[(_firstChain + offset) % _chains.Length];

    /// <summary>Moves up to a batch of frames and adds them to <paramref name="moved"/>. <see cref="NetProgress.Blocked"/>: the guest has no room.</summary>
    public NetProgress Serve(ref int timeout, ref int moved)
    {
        _ring.DisableNotifications();
        _packets = _bytes = 0;
        NetProgress progress = NetProgress.More;
        for (int left = _frames.Length; left > 0 && progress == NetProgress.More;)
        {
            long before = _packets;
            progress = _waiting > 0 ? Place() : ReadSome(left, ref timeout);
            left -= Math.Max(1, (int)(_packets - before));
        }

        if (_packets > 0)
        {
            moved += (int)_packets;
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
    public void GiveBack() => _ring.Untake(Chains);

    public void Dispose()
    {
        _vectors.Dispose();
        _group.Dispose();
        _rest?.Dispose();
    }

    private NetProgress ReadSome(int asked, ref int timeout)
    {
        RateLimiter? limiter = _device.ReceiveLimiter;
        bool single = limiter is not null || _large > 0;
        if (!Fill(chains: single ? 1 : asked, bytes: _large > 0 ? _needed : 0))
        {
            return NetProgress.Broken;
        }

        if (Chains == 0)
        {
            return NetProgress.Blocked;
        }

        if (limiter is not null && !limiter.IsReady(RateLimiter.Now, out int wait))
        {
            timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
            return NetProgress.Throttled;
        }

        int group = 1, frames = 1;
        if (single)
        {
            group = _large > 0 ? PrepareGroup() : PrepareOne(0);
        }
        else
        {
            frames = PrepareBatch(Math.Min(asked, Chains), out group);
        }

        int read = _queue.Read(_frames.AsSpan(0, frames));
        _failures = read > 0 ? 0 : _failures;
        for (int i = 0; i < read; i++)
        {
            int bytes = (int)_frames[i].Result, room = _frames[i].Room;
            limiter?.Charge((ulong)Math.Max(0, bytes - TapQueue.HeaderLength));
            if (bytes > room)
            {
                return Overflow(bytes, room, group);
            }

            if (bytes <= TapQueue.HeaderLength)
            {
                _device.LoseLink(); // no such frame exists
                return NetProgress.Idle;
            }

            _large -= _large > 0 && bytes <= First(0).Capacity ? 1 : 0;
            Finish(bytes);
        }

        if (read == frames)
        {
            return NetProgress.More;
        }

        return Failed((int)-_frames[read].Result, ref timeout);
    }

    /// <summary>No frame came, for this reason.</summary>
    private NetProgress Failed(int errno, ref int timeout)
    {
        switch (errno)
        {
            case Errno.EAGAIN:
                return NetProgress.Idle;
            case Errno.EBADFD: // the interface was deleted: there will never be a frame again
                _device.LoseLink();
                return NetProgress.Idle;
            default:
                // One frame is lost (no memory for it, an address that went away). Longer and longer pauses, in case the next one fares no better.
                _device.Counters.Drop();
                int wait = 1 << Math.Min(_failures++, LongestPauseLog2);
                timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
                return NetProgress.Throttled;
        }
    }

    /// <summary>One chain for each of up to <paramref name="most"/> frames; how many. A chain of too many pieces is the only one of its batch.</summary>
    private int PrepareBatch(int most, out int group)
    {
        group = PrepareOne(0);
        int frames = 1;
        while (group == 1 && frames < most && First(frames).Vectors < MaxVectors)
        {
            PrepareOne(frames++);
        }

        return frames;
    }

    /// <summary>A frame into one chain, and what does not fit behind it; or, when that would be too many pieces, past it. The number of chains.</summary>
    private int PrepareOne(int index)
    {
        ref readonly Chain chain = ref First(index);
        if (chain.Vectors >= MaxVectors)
        {
            _group.Span[0] = Rest();
            _frames[index] = new TapFrame(_group.AddressOf(0), 1, 0);
            return 0;
        }

        int vectors = chain.Vectors;
        if (chain.Capacity < _needed)
        {
            _vectors.Span[chain.FirstVector + vectors++] = Rest();
        }

        _frames[index] = new TapFrame(_vectors.AddressOf(chain.FirstVector), vectors, (int)Math.Min(chain.Capacity, int.MaxValue));
        return 1;
    }

    /// <summary>A frame into all chains there are, as far as the kernel takes so many pieces; the number of chains.</summary>
    private int PrepareGroup()
    {
        Span<IoVector> all = _vectors.Span, group = _group.Span;
        int chains = 0, vectors = 0;
        long capacity = 0;
        for (; chains < Chains && capacity < _needed; chains++)
        {
            ref readonly Chain chain = ref First(chains);
            if (vectors + chain.Vectors >= MaxVectors)
            {
                break;
            }

            all.Slice(chain.FirstVector, chain.Vectors).CopyTo(group[vectors..]);
            vectors += chain.Vectors;
            capacity += chain.Capacity;
        }

        if (capacity < _needed)
        {
            group[vectors++] = Rest();
        }

        _frames[0] = new TapFrame(_group.AddressOf(0), vectors, (int)Math.Min(capacity, int.MaxValue));
        return chains;
    }

    private IoVector Rest()
    {
        _rest ??= new NativeArray<byte>(TapQueue.HeaderLength + LargestSegment + 4);
        return new IoVector(_rest.AddressOf(0), (nuint)_rest.Length);
    }

    /// <summary>The frame just read ends in the buffer here.</summary>
    private NetProgress Overflow(int bytes, int inChains, int chains)
    {
        _large = _mergeable ? LargeFor : 0;
        (_waiting, _waitingInChains, _waitingChains) = (bytes, inChains, chains);
        return Place();
    }

    /// <summary>The frame that waits, into the chains when they hold it.</summary>
    private NetProgress Place()
    {
        if (_mergeable && !Fill(1, _waiting))
        {
            return NetProgress.Broken;
        }

        long room = _mergeable ? _capacity : First(0).Capacity;
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

        Span<byte> rest = _rest!.Span[..(_waiting - _waitingInChains)];
        for (int c = _waitingChains; rest.Length > 0; c++)
        {
            Chain chain = First(c);
            for (int i = chain.FirstVector; i < chain.FirstVector + chain.Vectors && rest.Length > 0; i++)
            {
                IoVector vector = _vectors.Span[i];
                int part = (int)Math.Min(vector.Length, (nuint)rest.Length);
                rest[..part].CopyTo(HostSpan.Bytes(vector.Base, part));
                rest = rest[part..];
            }
        }

        Finish(_waiting);
        _waiting = 0;
        return NetProgress.More;
    }

    /// <summary>Takes chains until there are so many that hold so many bytes, or no more. False when the driver broke the ring.</summary>
    private bool Fill(int chains, long bytes)
    {
        while ((Chains < chains || _capacity < bytes) && CanTakeMore)
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

    // Room for the longest chain: a queue's worth of descriptors, at most 1024, one more of an indirect table, and the free vector.
    private bool CanTakeMore => Chains < _ring.Size && (_vectorEnd <= _vectors.Length - MaxVectors - 2 || Compact());

    /// <summary>Moves the vectors of the taken chains to the front; false when that makes no room.</summary>
    private bool Compact()
    {
        Span<IoVector> all = _vectors.Span;
        int end = 0;
        for (int i = 0; i < Chains; i++)
        {
            ref Chain chain = ref First(i);
            all.Slice(chain.FirstVector, chain.Vectors).CopyTo(all[end..]);
            chain.FirstVector = end;
            end += chain.Vectors + 1;
        }

        _vectorEnd = end;
        return end <= all.Length - MaxVectors - 2;
    }

    private bool Add(ushort head)
    {
        ChainWalker walker = _ring.Walk(head);
        int start = _vectorEnd, end = start;
        long capacity = 0;
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (!buffer.Writable || end >= _vectors.Length - 1 || !_activation.Memory.TryGetHostAddress(buffer.Address, buffer.Length, out nint host))
            {
                return false;
            }

            _vectors.Span[end++] = new IoVector(host, buffer.Length);
            capacity += buffer.Length;
        }

        // 5.1.6.3.1: every buffer holds at least the header.
        if (step == ChainStep.Malformed || capacity < TapQueue.HeaderLength)
        {
            return false;
        }

        _chains[_chainEnd++ % _chains.Length] = new Chain { Head = head, FirstVector = start, Vectors = end - start, Capacity = capacity };
        _capacity += capacity;
        _vectorEnd = end + 1;
        return true;
    }

    /// <summary>A frame lies in the first chains: completes its header (5.1.6.4.1) and gives them back.</summary>
    private void Finish(int bytes)
    {
        int chains = 0;
        for (long covered = 0; covered < bytes; chains++)
        {
            covered += First(chains).Capacity;
        }

        PutHeader((ushort)chains);
        long left = bytes;
        for (int i = 0; i < chains; i++)
        {
            ref readonly Chain chain = ref First(0);
            long written = Math.Min(left, chain.Capacity);
            _ring.Complete(chain.Head, (uint)written);
            left -= written;
            _capacity -= chain.Capacity;
            _firstChain++;
        }

        if (_firstChain == _chainEnd)
        {
            _firstChain = _chainEnd = _vectorEnd = 0;
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

    /// <summary>The number of chains, and no flags for a driver that takes none, into the header in the first chain.</summary>
    private void PutHeader(ushort chains)
    {
        Span<byte> number = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(number, chains);
        IoVector first = _vectors.Span[First(0).FirstVector];
        if (first.Length >= TapQueue.HeaderLength)
        {
            Span<byte> header = HostSpan.Bytes(first.Base, TapQueue.HeaderLength);
            number.CopyTo(header[BuffersAt..]);
            header[FlagsAt] = _keepsFlags ? header[FlagsAt] : (byte)0;
            return;
        }

        PutHeaderByte(BuffersAt, number[0]);
        PutHeaderByte(BuffersAt + 1, number[1]);
        if (!_keepsFlags)
        {
            PutHeaderByte(FlagsAt, 0);
        }
    }

    private void PutHeaderByte(int at, byte value)
    {
        for (int i = First(0).FirstVector; ; i++)
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

    /// <summary>A taken chain: where its vectors begin, how many there are, and how many bytes they hold.</summary>
    private struct Chain
    {
        public ushort Head;
        public int FirstVector;
        public int Vectors;
        public long Capacity;
    }
}
