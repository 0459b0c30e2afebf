using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>
/// Frames of the guest to the host, straight out of its buffers, a batch at a time. Frames the host has no room for, or the rate limit
/// holds back, are kept, and no others are taken meanwhile. One thread.
/// </summary>
internal sealed class NetSender : IPageWaiter
{
    private const int MaxVectors = 1024; // IOV_MAX

    private readonly VirtioNet _device;
    private readonly VirtioActivation _activation;
    private readonly Virtqueue _ring;
    private readonly INetQueue _queue;
    private readonly PageLease _pages = new(2 * MaxVectors); // of the batch, from the first write to the last
    private readonly TapFrame[] _frames;
    private readonly Packet[] _packets;
    private int _next, _paid, _taken; // [_next, _paid): to be written; one behind them may wait for the limit
    private readonly Action _wake;
    private volatile bool _waiting; // for pages of the batch

    internal NetSender(VirtioNet device, VirtioActivation activation, Virtqueue ring, INetQueue queue, int batch, Action wake)
    {
        _device = device;
        _activation = activation;
        _ring = ring;
        _queue = queue;
        _wake = wake;
        _frames = new TapFrame[batch];
        _packets = new Packet[batch];
    }

    /// <summary>
    /// Moves up to a batch of frames and adds them to <paramref name="moved"/>. <see cref="NetProgress.Blocked"/>: the host has no room.
    /// </summary>
    public NetProgress Serve(ref int timeout, ref int moved)
    {
        _ring.DisableNotifications();
        NetProgress progress = _next == _taken ? Take(ref timeout) : _paid < _taken ? Pay(ref timeout) : NetProgress.More;
        if (_next == _paid)
        {
            return progress;
        }

        if (!_pages.IsHeld && !TryAcquire(out NetProgress answer))
        {
            return answer;
        }

        int done = _queue.Write(_frames.AsSpan(_next, _paid - _next));
        Finish(done);
        moved += done;
        return _next < _paid && progress != NetProgress.Broken ? NetProgress.Blocked : progress;
    }

    /// <summary>Frames that were not sent count as never taken.</summary>
    public void GiveBack()
    {
        _ring.Untake(_taken - _next);
        _next = _paid = _taken = 0;
        _pages.Release();
    }

    /// <inheritdoc/>
    public void PagesReady(PageLease lease)
    {
        _waiting = false;
        _wake();
    }

    /// <summary>The pages of every frame of the batch, one piece for each vector of its frames.</summary>
    private bool TryAcquire(out NetProgress answer)
    {
        answer = NetProgress.Paging;
        if (_waiting)
        {
            return false;
        }

        switch (_activation.Memory.Dma.TryAcquire(_pages, DmaAccess.Read, this))
        {
            case Acquired.Pending:
                _waiting = true;
                return false;
            case Acquired.Outside:
                answer = NetProgress.Broken; // unplugged since the chain was read
                return false;
            default:
                break;
        }

        for (int i = 0; i < _taken; i++)
        {
            ref readonly Packet packet = ref _packets[i];
            _frames[i] = new TapFrame(HostSpan.AddressOf(_pages.Vectors.Slice(packet.First, packet.Pieces)), packet.Pieces);
        }

        return true;
    }

    private NetProgress Take(ref int timeout)
    {
        _next = _paid = _taken = 0;
        _pages.Release();
        _pages.Forget();
        // Room for one more frame of any number of pieces.
        while (_taken < _frames.Length && _pages.Named <= _pages.MaximumPieces - MaxVectors)
        {
            TakeResult taken = _ring.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                return NetProgress.Idle;
            }

            if (taken == TakeResult.Malformed || !Parse(head))
            {
                return NetProgress.Broken;
            }

            NetProgress paid = Pay(ref timeout);
            if (paid != NetProgress.More)
            {
                return paid;
            }
        }

        return NetProgress.More;
    }

    /// <summary>The frame that was taken last, out of the rate limit.</summary>
    private NetProgress Pay(ref int timeout)
    {
        if (_device.SendLimiter is { } limiter && !limiter.TryTake(_packets[_paid].Length, RateLimiter.Now, out int wait))
        {
            timeout = timeout < 0 ? wait : Math.Min(timeout, wait);
            return NetProgress.Throttled;
        }

        _paid++;
        return NetProgress.More;
    }

    private void Finish(int done)
    {
        long packets = 0, bytes = 0;
        for (int end = _next + done; _next < end; _next++)
        {
            if (_frames[_next].Result < 0)
            {
                _device.Counters.Drop(); // the interface is down or gone, or the header makes no sense to the host
            }
            else
            {
                packets++;
                bytes += (long)_packets[_next].Length;
            }

            _ring.Complete(_packets[_next].Head, 0);
        }

        if (packets > 0)
        {
            _device.Counters.Sent(packets, bytes);
        }
    }

    // 5.1.6.2: readable buffers only, the header first, in any pieces. What the header asks for is checked by the host's kernel.
    private bool Parse(ushort head)
    {
        ChainWalker walker = _ring.Walk(head);
        int first = _pages.Named, count = 0;
        ulong length = 0;
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (buffer.Writable)
            {
                return false;
            }

            if (count++ < MaxVectors)
            {
                _pages.TryAdd(new GuestRange(buffer.Address, buffer.Length));
            }

            length += buffer.Length;
        }

        if (step != ChainStep.End || length < TapQueue.HeaderLength)
        {
            return false;
        }

        // In more pieces than the kernel takes: without any, which is refused.
        _packets[_taken++] = new Packet(head, length - TapQueue.HeaderLength, first, count <= MaxVectors ? count : 0);
        return true;
    }

    /// <summary>A taken chain.</summary>
    /// <param name="Head">Of the chain.</param>
    /// <param name="Length">Bytes behind the header.</param>
    /// <param name="First">Its first piece of the batch's lease.</param>
    /// <param name="Pieces">How many it has there.</param>
    private readonly record struct Packet(ushort Head, ulong Length, int First, int Pieces);
}
