using System.Buffers.Binary;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Frames of the host into the guest's buffers. Chains are taken ahead of the frames. As long as frames fit into one chain, a batch of them
/// is read, each into a chain; after one that did not, single frames are read into as many chains as hold the largest there can be. Behind
/// chains that might be too small lies a buffer here: what ends up in it is copied into more chains, and waits for them if need be instead
/// of being lost. One thread.
/// </summary>
internal sealed class NetReceiver : IPageWaiter, IDisposable
{
    private const int LargestSegment = 65535 + 14; // a TSO frame
    private const int FlagsAt = 0, BuffersAt = 10;
    private const int LongestPauseLog2 = 7; // milliseconds between reads that fail
    private const int LargeFor = 64; // frames that fit into one chain until batches are read again

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly Virtqueue _ring;
    private readonly INetQueue _queue;
    private readonly bool _mergeable, _keepsFlags;
    private readonly int _needed;
    private readonly PostedChains _posted;
    private readonly TapFrame[] _frames;

    private readonly PageLease _pages = new(PostedChains.MaxRanges); // of the first chains, while a frame goes into them
    private readonly NativeArray<IoVector> _vectors = new(PostedChains.MaxRanges + PostedChains.MaxPieces); // of the frames of one read
    private readonly Action _wake;
    private NativeArray<byte>? _rest;
    private int _piece; // of the lease: the first one of the first chain
    private volatile bool _paging;
    private int _large;
    private int _failures; // reads in a row that failed
    private int _waiting, _waitingInChains; // a frame whose end lies in _rest: bytes, those in the first chains
    private long _packets, _bytes;
    private bool _published;

    internal NetReceiver(VirtioNet device, VirtioActivation activation, Virtqueue ring, INetQueue queue, int batch, Action wake)
    {
        _device = device;
        _activation = activation;
        _ring = ring;
        _queue = queue;
        _wake = wake;
        _mergeable = (activation.Features & NetFeatures.MergeableBuffers) != 0;
        _keepsFlags = (activation.Features & NetFeatures.GuestChecksum) != 0;
        // 5.1.6.3.1: without segments a driver posts what holds its MTU (and merges what a VLAN tag adds).
        _needed = TapQueue.HeaderLength
            + ((activation.Features & NetFeatures.GuestSegments) != 0 ? LargestSegment : 14 + device.Mtu + (_mergeable ? 4 : 0));
        _posted = new PostedChains(ring);
        _frames = new TapFrame[Math.Min(batch, (int)ring.Size)];
    }

    /// <summary>
    /// Moves up to a batch of frames and adds them to <paramref name="moved"/>. <see cref="NetProgress.Blocked"/>: the guest has no room.
    /// </summary>
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
    public void GiveBack() => _posted.GiveBack();

    public void Dispose()
    {
        _vectors.Dispose();
        _rest?.Dispose();
    }

    private NetProgress ReadSome(int asked, ref int timeout)
    {
        RateLimiter? limiter = _device.ReceiveLimiter;
        bool single = limiter is not null || _large > 0;
        if (!_posted.Fill(chains: single ? 1 : asked, bytes: _large > 0 ? _needed : 0))
        {
            return NetProgress.Broken;
        }

        if (_posted.Count == 0)
        {
            return NetProgress.Blocked;
        }

        if (limiter is not null && !limiter.IsReady(RateLimiter.Now, out int wait))
        {
            timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
            return NetProgress.Throttled;
        }

        int group = single ? _posted.GroupFor(_large > 0 ? _needed : 1) : 1;
        int chains = single ? group : Math.Min(asked, _posted.Count);
        if (!TryAcquire(chains, out NetProgress waiting))
        {
            return waiting;
        }

        int frames = 1;
        if (single)
        {
            int at = 0, piece = 0;
            PrepareFrame(0, 0, group, ref at, ref piece);
        }
        else
        {
            frames = PrepareBatch(chains, out group);
        }

        NetProgress progress = Read(frames, group, limiter, ref timeout);
        _pages.ReleaseWritten(_piece);
        return progress;
    }

    private NetProgress Read(int frames, int group, RateLimiter? limiter, ref int timeout)
    {
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

            _large -= _large > 0 && bytes <= _posted.First(0).Capacity ? 1 : 0;
            Finish(bytes);
        }

        return read == frames ? NetProgress.More : Failed((int)-_frames[read].Result, ref timeout);
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
                // One frame is lost (no memory for it, an address that went away). Longer and longer pauses, in case the next one fares no
                // better.
                _device.Counters.Drop();
                int wait = 1 << Math.Min(_failures++, LongestPauseLog2);
                timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
                return NetProgress.Throttled;
        }
    }

    /// <summary>
    /// The pages of the first chains, one piece of the lease for each of their buffers. False with what to do instead.
    /// </summary>
    private bool TryAcquire(int chains, out NetProgress answer)
    {
        answer = NetProgress.Paging;
        if (_paging)
        {
            return false;
        }

        _pages.Forget();
        _piece = 0;
        for (int i = 0; i < chains; i++)
        {
            ref readonly PostedChain chain = ref _posted.First(i);
            foreach (GuestRange range in _posted.RangesOf(chain))
            {
                _pages.TryAdd(range);
            }
        }

        switch (_activation.Memory.Dma.TryAcquire(_pages, DmaAccess.Write, this))
        {
            case Acquired.Pending:
                _paging = true;
                return false;
            case Acquired.Outside:
                answer = NetProgress.Broken; // unplugged since the chain was read
                return false;
            default:
                return true;
        }
    }

    /// <inheritdoc/>
    public void PagesReady(PageLease lease)
    {
        _paging = false;
        _wake();
    }

    /// <summary>
    /// One of the first <paramref name="chains"/> chains for each frame; how many frames. A chain of too many pieces is the only one of its
    /// batch, and its frame comes into the buffer here: <paramref name="group"/> is 0 then.
    /// </summary>
    private int PrepareBatch(int chains, out int group)
    {
        int at = 0, piece = 0, frames = 0;
        group = _posted.First(0).Ranges < PostedChains.MaxPieces ? 1 : 0;
        do
        {
            PrepareFrame(frames, frames, group, ref at, ref piece);
            frames++;
        }
        while (group == 1 && frames < chains && _posted.First(frames).Ranges < PostedChains.MaxPieces);
        return frames;
    }

    /// <summary>A frame into some chains, and what does not fit behind them.</summary>
    private void PrepareFrame(int frame, int firstChain, int chains, ref int at, ref int piece)
    {
        Span<IoVector> vectors = _vectors.Span;
        int begin = at;
        long capacity = 0;
        for (int i = firstChain; i < firstChain + chains; i++)
        {
            ref readonly PostedChain chain = ref _posted.First(i);
            _pages.Vectors.Slice(piece, chain.Ranges).CopyTo(vectors[at..]);
            at += chain.Ranges;
            piece += chain.Ranges;
            capacity += chain.Capacity;
        }

        if (capacity < _needed)
        {
            vectors[at++] = Rest();
        }

        _frames[frame] = new TapFrame(_vectors.AddressOf(begin), at - begin, (int)Math.Min(capacity, int.MaxValue));
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
        (_waiting, _waitingInChains) = (bytes, chains > 0 ? inChains : 0);
        _pages.Release();
        return Place();
    }

    /// <summary>The frame that waits, into the chains when they hold it.</summary>
    private NetProgress Place()
    {
        if (_mergeable && !_posted.Fill(1, _waiting))
        {
            return NetProgress.Broken;
        }

        long room = _mergeable ? _posted.Capacity : _posted.First(0).Capacity;
        if (room < _waiting)
        {
            if (_mergeable && _posted.CanTakeMore)
            {
                return NetProgress.Blocked; // the driver can still add buffers
            }

            _waiting = 0;
            _device.Counters.Drop();
            return NetProgress.More;
        }

        if (!TryAcquire(_mergeable ? _posted.ChainsFor(_waiting) : 1, out NetProgress answer))
        {
            return answer;
        }

        _pages.CopyFrom((ulong)_waitingInChains, _rest!.Span[..(_waiting - _waitingInChains)]);
        Finish(_waiting);
        _waiting = 0;
        _pages.ReleaseWritten(_piece);
        return NetProgress.More;
    }

    /// <summary>A frame lies in the first chains: completes its header (5.1.6.4.1) and gives them back.</summary>
    private void Finish(int bytes)
    {
        int chains = _posted.ChainsFor(bytes);
        PutHeader((ushort)chains);
        long left = bytes;
        for (int i = 0; i < chains; i++)
        {
            ref readonly PostedChain chain = ref _posted.First(0);
            long written = Math.Min(left, chain.Capacity);
            _ring.Complete(chain.Head, (uint)written);
            left -= written;
            _piece += chain.Ranges;
            _posted.RemoveFirst();
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
        Span<byte> first = _pages.Bytes(_piece);
        if (first.Length >= TapQueue.HeaderLength)
        {
            number.CopyTo(first[BuffersAt..]);
            first[FlagsAt] = _keepsFlags ? first[FlagsAt] : (byte)0;
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
        for (int i = _piece; ; i++)
        {
            Span<byte> bytes = _pages.Bytes(i);
            if (at < bytes.Length)
            {
                bytes[at] = value;
                return;
            }

            at -= bytes.Length;
        }
    }
}
