using Vmm.Interop;
using Vmm.Io;
using Vmm.Memory;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// One request queue: takes chains, checks them (virtio 1.2 section 5.2.6), submits them to storage through its router and gives them back.
/// Runs on one loop. A slot has its request and its iovec array, all made once. What needs no storage (GET_ID, what is refused) takes its
/// turn through the router, too.
/// </summary>
internal sealed class BlkQueue : IBlockOwner, IDisposable
{
    private const ulong MaxTransfer = 1UL << 30;
    private readonly GuestMemory _memory;
    private readonly Virtqueue _ring;
    private readonly IoLoop _loop;
    private readonly BlockGeometry _disk;
    private readonly RequestRouter _router;
    private readonly VirtioBlk _device;
    private readonly ulong _features;
    private readonly BlkRequest[] _slots;
    private readonly BlockRequest[] _requests;
    private readonly int[] _free;
    private readonly int _vectorsPerSlot;
    private readonly NativeArray<IoVector> _vectors;
    private int _freeCount;

    internal BlkQueue(VirtioBlk device, IBlockNode disk, VirtioActivation activation, int index, IoLoop loop)
    {
        ActiveQueue active = activation.Queues[index]!;
        Index = index;
        Doorbell = active.Doorbell;
        _device = device;
        _disk = disk.Geometry;
        _loop = loop;
        _router = new RequestRouter(loop, disk);
        _memory = activation.Memory;
        _features = activation.Features;
        _ring = active.Queue;
        int size = _ring.Size;
        _slots = new BlkRequest[size];
        _requests = new BlockRequest[size];
        _free = new int[size];
        _vectorsPerSlot = BlkConfig.SegMax(Math.Max(size, 4)) + 2;
        _vectors = new NativeArray<IoVector>(size * _vectorsPerSlot);
        for (int i = 0; i < size; i++)
        {
            _free[i] = i;
            _requests[i] = new BlockRequest(this, i);
            loop.Add(_requests[i]);
        }

        _freeCount = size;
    }

    public int Index { get; }

    public EventFd Doorbell { get; }

    /// <summary>True after <see cref="Drop"/>, once storage has given everything back.</summary>
    public bool IsDrained => _router.IsDrained;

    /// <summary>Nothing is taken while a request is held: it would only wait behind it.</summary>
    private bool MayTake => _freeCount > 0 && !_router.IsHolding;

    /// <summary>What each request has to pass from now on; null is nothing.</summary>
    public void Limit(IRequestGate? gate) => _router.Gate = gate;

    /// <summary>Takes up to a ring's worth of chains. False when the driver broke the ring.</summary>
    public bool Take(out bool any)
    {
        any = false;
        for (int budget = _ring.Size; budget > 0 && MayTake; budget--)
        {
            TakeResult result = _ring.TryTake(out ushort head);
            if (result == TakeResult.Empty)
            {
                break;
            }

            any = true;
            if (result == TakeResult.Malformed || !Start(head))
            {
                return false;
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
            asked.WrittenOnSuccess = CopyId(Vectors(slot).Slice(asked.ReadableVectors, asked.WritableVectors));
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

    /// <summary>The driver resets the device: what is held is forgotten, with the ring that it came from.</summary>
    public void Drop()
    {
        _router.Hold();
        _router.TakeHeld();
    }

    public void Dispose()
    {
        _router.Dispose();
        foreach (BlockRequest request in _requests)
        {
            _loop.Remove(request);
        }

        _vectors.Dispose();
    }

    private Span<IoVector> Vectors(int slot) => _vectors.Span.Slice(slot * _vectorsPerSlot, _vectorsPerSlot);

    private bool Start(ushort head)
    {
        int slot = _free[_freeCount - 1];
        ref BlkRequest asked = ref _slots[slot];
        Span<IoVector> vectors = Vectors(slot);
        if (!BlkRequest.TryParse(_memory, _ring.Walk(head), head, vectors, out asked))
        {
            return false;
        }

        if (asked.Type is BlkType.Discard or BlkType.WriteZeroes && asked.ReadableBytes == BlkRange.Length)
        {
            asked.Range = BlkRange.Read(vectors[..asked.ReadableVectors]);
        }

        _freeCount--;
        BlockRequest request = _requests[slot];
        asked.Answer = asked.TooManySegments ? BlkStatus.IoError : Prepare(ref asked, request, vectors);
        if (request.State != BlockState.New)
        {
            // Nothing for storage. What it would have moved counts, so that refused requests are limited like others.
            ulong moved = asked.Type is BlkType.In or BlkType.Out ? asked.ReadableBytes + asked.WritableBytes : 0;
            request.Prepare(BlockKind.None, length: (uint)Math.Min(moved, uint.MaxValue));
        }

        _router.Submit(request);
        return true;
    }

    // Prepares the request that does it. Without one, the answer is known: what is returned.
    private BlkStatus Prepare(ref BlkRequest asked, BlockRequest request, ReadOnlySpan<IoVector> vectors)
    {
        switch (asked.Type)
        {
            case BlkType.In:
                if (!InRange(asked.Sector, asked.WritableBytes))
                {
                    return BlkStatus.IoError;
                }

                asked.WrittenOnSuccess = (uint)asked.WritableBytes;
                if (asked.WritableBytes > 0)
                {
                    request.Prepare(BlockKind.Read, asked.Sector * 512, (uint)asked.WritableBytes);
                    request.SetData(vectors.Slice(asked.ReadableVectors, asked.WritableVectors));
                }

                return BlkStatus.Ok;

            case BlkType.Out:
                if (_disk.ReadOnly || !InRange(asked.Sector, asked.ReadableBytes))
                {
                    return BlkStatus.IoError;
                }

                if (asked.ReadableBytes > 0)
                {
                    request.Prepare(BlockKind.Write, asked.Sector * 512, (uint)asked.ReadableBytes, WriteFlags);
                    request.SetData(vectors[..asked.ReadableVectors]);
                }

                return BlkStatus.Ok;

            case BlkType.Flush:
                request.Prepare(BlockKind.Flush);
                return BlkStatus.Ok;

            case BlkType.GetId:
                return BlkStatus.Ok; // copied when its turn comes

            case BlkType.Discard or BlkType.WriteZeroes:
                return PrepareRange(asked, request);

            default:
                return BlkStatus.Unsupported;
        }
    }

    // Discard and write-zeroes carry one BlkRange.
    private BlkStatus PrepareRange(in BlkRequest asked, BlockRequest request)
    {
        bool discard = asked.Type == BlkType.Discard;
        if ((_features & (discard ? BlkFeatures.Discard : BlkFeatures.WriteZeroes)) == 0)
        {
            return BlkStatus.Unsupported;
        }

        if (_disk.ReadOnly || asked.ReadableBytes != BlkRange.Length) // max_discard_seg and max_write_zeroes_seg are 1
        {
            return BlkStatus.IoError;
        }

        (ulong sector, uint sectors, uint flags) = asked.Range;
        if ((flags & (discard ? ~0u : ~BlkRange.Unmap)) != 0)
        {
            return BlkStatus.Unsupported; // 5.2.6.2: unknown flags, and unmap in a discard
        }

        if (sectors > (discard ? BlkConfig.MaxDiscardSectors : BlkConfig.MaxWriteZeroesSectors) || !InRange(sector, sectors * 512UL))
        {
            return BlkStatus.IoError;
        }

        if (sectors > 0)
        {
            BlockFlags unmap = !discard && (flags & BlkRange.Unmap) != 0 ? BlockFlags.MayUnmap : BlockFlags.None;
            request.Prepare(discard ? BlockKind.Discard : BlockKind.WriteZeroes, sector * 512, sectors * 512, WriteFlags | unmap);
        }

        return BlkStatus.Ok;
    }

    // 5.2.5.2 and 5.2.6.2: without FLUSH, or with write-back switched off, a finished write is on stable storage.
    private BlockFlags WriteFlags => (_features & BlkFeatures.Flush) == 0 || ((_features & BlkFeatures.ConfigWce) != 0 && !_device.Writeback)
        ? BlockFlags.Fua : BlockFlags.None;

    private bool InRange(ulong sector, ulong bytes)
    {
        ulong sectors = _disk.CapacityBytes / 512;
        return bytes % 512 == 0 && bytes <= MaxTransfer && sector <= sectors && bytes / 512 <= sectors - sector;
    }

    private uint CopyId(ReadOnlySpan<IoVector> vectors)
    {
        ReadOnlySpan<byte> id = _device.Id;
        uint written = 0;
        foreach (ref readonly IoVector v in vectors)
        {
            int part = (int)Math.Min(v.Length, (nuint)id.Length);
            id[..part].CopyTo(HostSpan.Bytes(v.Base, part));
            id = id[part..];
            written += (uint)part;
        }

        return written;
    }

    private void Complete(int slot, BlkStatus status)
    {
        ref BlkRequest asked = ref _slots[slot];
        _device.Counters.Count(asked, status);
        _memory.TryWrite(asked.Status, (byte)status);
        _ring.Complete(asked.Head, status == BlkStatus.Ok ? asked.WrittenOnSuccess + 1 : 1);
        _free[_freeCount++] = slot;
    }
}
