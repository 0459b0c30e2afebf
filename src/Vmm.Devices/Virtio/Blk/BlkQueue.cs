using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// One request queue: takes chains, checks them (virtio 1.2 section 5.2.6), submits them to storage through its router and gives them back.
/// Runs on one loop. A slot has its request and its lease, made once. What needs no storage (GET_ID, what is refused) takes its turn
/// through the router, too.
/// </summary>
internal sealed class BlkQueue : IBlockOwner, IDisposable
{
    private readonly DmaSpace _memory;
    private readonly Virtqueue _ring;
    private readonly IoLoop _loop;
    private readonly BlockGeometry _disk;
    private readonly BlkBounds _bounds;
    private DmaFilter _filter;
    private readonly BlkSegments _segments;
    private readonly RequestRouter _router;
    private readonly VirtioBlk _device;
    private readonly BlkQueueCounters _counters;
    private readonly ulong _features;
    private readonly BlkRequest[] _slots;
    private readonly BlockRequest[] _requests;
    private readonly int[] _free;
    private readonly PageLease[] _pages;
    private readonly HeaderFetch _fetch;
    private int _freeCount;

    internal BlkQueue(VirtioBlk device, IBlockNode disk, VirtioActivation activation, int index, IoLoop loop)
    {
        ActiveQueue active = activation.Queues[index]!;
        Index = index;
        Doorbell = active.Doorbell;
        _device = device;
        _disk = disk.Geometry;
        _loop = loop;
        _filter = new DmaFilter(activation.Memory.Dma, disk);
        _ring = active.Queue;
        int size = _ring.Size;
        _segments = new BlkSegments(_filter, size);
        _router = new RequestRouter(loop, _segments) { Faults = device.Stall, Latencies = device.Counters[index].Latencies };
        _counters = device.Counters[index];
        _counters.Router = _router;
        _memory = activation.Memory.Dma;
        _fetch = new HeaderFetch(_memory, loop);
        _features = activation.Features;
        _bounds = device.Bounds(_features);
        _slots = new BlkRequest[size];
        _requests = new BlockRequest[size];
        _free = new int[size];
        _pages = new PageLease[size];
        int segments = BlkConfig.SegMax(Math.Max(size, 4)) + 2;
        for (int i = 0; i < size; i++)
        {
            _free[i] = i;
            _pages[i] = new PageLease(segments);
            _requests[i] = new BlockRequest(this, i, _pages[i]);
            loop.Add(_requests[i]);
        }

        _freeCount = size;
    }

    public int Index { get; }

    public EventFd Doorbell { get; }

    /// <summary>True after <see cref="HoldAsync"/>, once storage has given everything back.</summary>
    public bool IsDrained => _router.IsDrained;

    private bool MayTake => _freeCount > 0 && _router.HasRoom && !_fetch.IsWaiting;

    private enum Began
    {
        /// <summary>The request is on its way.</summary>
        Yes,

        /// <summary>Something of its chain is on its way in: it counts as not taken.</summary>
        Later,

        /// <summary>The chain breaks the rules.</summary>
        Never,
    }

    /// <summary>What each request has to pass from now on; null is nothing.</summary>
    public void Limit(IRequestGate? gate) => _router.Gate = gate;

    /// <summary>Takes up to a ring's worth of chains. False when the driver broke the ring.</summary>
    public bool Take(out bool any)
    {
        any = false;
        _fetch.End();
        for (int budget = _ring.Size; budget > 0 && MayTake; budget--)
        {
            TakeResult result = _ring.TryTake(out ushort head);
            if (result == TakeResult.Empty)
            {
                break;
            }

            Began began = result == TakeResult.Malformed ? Began.Never : Start(head);
            any |= began != Began.Later;
            if (began == Began.Never)
            {
                return false;
            }

            if (began == Began.Later)
            {
                _ring.Untake(1);
                break;
            }
        }

        return true;
    }

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status)
    {
        int slot = request.Token;
        ref BlkRequest asked = ref _slots[slot];
        if (status is DiskStatus.NoSpace or DiskStatus.IoError)
        {
            _device.Faults.Failed(status);
        }
        else if (status == DiskStatus.Ok && request.Kind is BlockKind.Write or BlockKind.WriteZeroes)
        {
            _device.Faults.Written();
        }

        if (asked.Type == BlkType.GetId && asked.Answer == BlkStatus.Ok)
        {
            asked.WrittenOnSuccess = (uint)_memory.Write(_pages[slot], _device.Id);
        }

        Complete(slot, status switch
        {
            DiskStatus.Ok => asked.Answer,
            DiskStatus.NotSupported => BlkStatus.Unsupported,
            _ => BlkStatus.IoError,
        });
    }

    /// <summary>Shows finished requests to the driver; true when it wants an interrupt.</summary>
    public bool Publish() => _ring.Publish();

    public void DisableNotifications() => _ring.DisableNotifications();

    /// <summary>True when chains arrived that can be taken now.</summary>
    public bool EnableNotifications() => _ring.EnableNotifications() && MayTake;

    /// <summary>
    /// Nothing is taken or forwarded until <see cref="Resume"/>. What was held counts as not taken: it is the youngest that came from the
    /// ring, since nothing overtakes what is held. Done when storage has given everything else back.
    /// </summary>
    public Task HoldAsync()
    {
        _router.Hold(most: 0);
        foreach (BlockRequest request in _router.TakeHeld())
        {
            _free[_freeCount++] = request.Token;
            _ring.Untake(1);
        }

        return _router.DrainAsync();
    }

    /// <summary>Ends <see cref="HoldAsync"/> with another disk: storage has given everything back.</summary>
    public void Forward(IBlockNode disk)
    {
        Reassign(disk);
        _router.Resume();
    }

    /// <summary>Another disk, while everything is held: storage has given everything back.</summary>
    public void Reassign(IBlockNode disk)
    {
        _filter = new DmaFilter(_memory, disk);
        _segments.Retarget(_filter);
        _router.Reassign(_segments);
    }

    /// <summary>Ends <see cref="HoldAsync"/>.</summary>
    public void Resume() => _router.Resume();

    /// <summary>Waits for what storage has. The disk stays open.</summary>
    public void Dispose()
    {
        _router.FlushAndClose(_loop);
        _filter.FlushAndClose(_loop);
        _counters.Router = null;
        foreach (BlockRequest request in _requests)
        {
            _loop.Remove(request);
        }
    }

    private Began Start(ushort head)
    {
        int slot = _free[_freeCount - 1];
        ref BlkRequest asked = ref _slots[slot];
        PageLease pages = _pages[slot];
        if (_ring.TryFindTable(head, out GuestRange table) && !_memory.IsHere(table) && !_fetch.TryFetch(table))
        {
            return Began.Later;
        }

        while (!BlkRequest.TryParse(_memory, _ring, head, pages, out asked))
        {
            if (asked.Missing.Length == 0)
            {
                return Began.Never;
            }

            if (!_fetch.TryFetch(asked.Missing))
            {
                return Began.Later;
            }
        }

        _freeCount--;
        BlockRequest request = _requests[slot];
        request.Prepare(BlockKind.None); // whatever the slot was last used for
        asked.Answer = asked.TooManySegments ? BlkStatus.IoError : Prepare(ref asked, request);
        if (request.Kind == BlockKind.None)
        {
            // Nothing for storage. What it would have moved counts, so that refused requests are limited like others.
            ulong moved = asked.Type is BlkType.In or BlkType.Out ? asked.ReadableBytes + asked.WritableBytes : 0;
            request.Prepare(BlockKind.None, length: (uint)Math.Min(moved, uint.MaxValue));
        }

        _router.Submit(request);
        return Began.Yes;
    }

    // Prepares the request that does it. Without one, the answer is known: what is returned.
    private BlkStatus Prepare(ref BlkRequest asked, BlockRequest request)
    {
        switch (asked.Type)
        {
            case BlkType.In:
                if (!_bounds.Allow(asked.Sector, asked.WritableBytes))
                {
                    return BlkStatus.IoError;
                }

                asked.WrittenOnSuccess = (uint)asked.WritableBytes;
                if (asked.WritableBytes > 0)
                {
                    request.Prepare(BlockKind.Read, asked.Sector * 512, (uint)asked.WritableBytes);
                }

                return BlkStatus.Ok;

            case BlkType.Out:
                if (_disk.ReadOnly || !_bounds.Allow(asked.Sector, asked.ReadableBytes))
                {
                    return BlkStatus.IoError;
                }

                if (asked.ReadableBytes > 0)
                {
                    request.Prepare(BlockKind.Write, asked.Sector * 512, (uint)asked.ReadableBytes, WriteFlags);
                }

                return BlkStatus.Ok;

            case BlkType.Flush:
                request.Prepare(BlockKind.Flush);
                return BlkStatus.Ok;

            case BlkType.GetId:
                return BlkStatus.Ok; // copied when its turn comes

            case BlkType.Discard or BlkType.WriteZeroes:
                return PrepareRanges(asked, request);

            default:
                return BlkStatus.Unsupported;
        }
    }

    // Discard and write-zeroes carry one BlkRange a segment. They are read once: the guest may change them while the request is held.
    private BlkStatus PrepareRanges(in BlkRequest asked, BlockRequest request)
    {
        bool discard = asked.Type == BlkType.Discard;
        if ((_features & (discard ? BlkFeatures.Discard : BlkFeatures.WriteZeroes)) == 0)
        {
            return BlkStatus.Unsupported;
        }

        if (_disk.ReadOnly || asked.ReadableBytes % BlkRange.Length != 0
            || asked.ReadableBytes is 0 or > BlkSegments.Most * BlkRange.Length)
        {
            return BlkStatus.IoError;
        }

        Span<byte> ranges = stackalloc byte[(int)asked.ReadableBytes];
        return _memory.Read(_pages[request.Token], ranges) < ranges.Length
            ? BlkStatus.IoError // it was RAM when the chain was read
            : _segments.Prepare(request, discard, ranges, _bounds, WriteFlags);
    }

    // 5.2.5.2 and 5.2.6.2: without FLUSH, or with write-back switched off, a finished write is on stable storage.
    private BlockFlags WriteFlags =>
        (_features & BlkFeatures.Flush) == 0 || ((_features & BlkFeatures.ConfigWce) != 0 && !_device.Writeback)
            ? BlockFlags.Fua : BlockFlags.None;

    private void Complete(int slot, BlkStatus status)
    {
        ref BlkRequest asked = ref _slots[slot];
        _counters.Count(asked, status);
        _memory.TryWrite(asked.Status, (byte)status);
        _ring.Complete(asked.Head, status == BlkStatus.Ok ? asked.WrittenOnSuccess + 1 : 1);
        _free[_freeCount++] = slot;
    }
}
