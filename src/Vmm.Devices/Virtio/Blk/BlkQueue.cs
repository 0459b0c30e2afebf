using Vmm.Interop;
using Vmm.Memory;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// One request queue: takes chains, checks them (virtio 1.2 section 5.2.6), hands them to the disk and gives them back. Runs on one I/O thread.
/// Request slots and their iovec arrays are made once.
/// </summary>
internal sealed class BlkQueue : IDisposable
{
    private const ulong MaxTransfer = 1UL << 30;
    private readonly GuestMemory _memory;
    private readonly Virtqueue _ring;
    private readonly IDiskBackend _disk;
    private readonly IDiskQueue _requests;
    private readonly VirtioBlk _device;
    private readonly ulong _features;
    private readonly BlkRequest[] _slots;
    private readonly int[] _free;
    private readonly int _vectorsPerSlot;
    private readonly NativeArray<IoVector> _vectors;
    private readonly ulong _tagBase;
    private int _freeCount;
    private int _held = -1; // the slot of a request that waits for the rate limit; nothing is taken behind it

    internal BlkQueue(VirtioBlk device, IDiskBackend disk, VirtioActivation activation, int index, int tag, IDiskQueue requests)
    {
        ActiveQueue active = activation.Queues[index]!;
        Index = index;
        Doorbell = active.Doorbell;
        _device = device;
        _disk = disk;
        _requests = requests;
        _memory = activation.Memory;
        _features = activation.Features;
        _ring = active.Queue;
        _tagBase = (ulong)tag << 32;
        int size = _ring.Size;
        _slots = new BlkRequest[size];
        _free = new int[size];
        _vectorsPerSlot = BlkConfig.SegMax(Math.Max(size, 4)) + 2;
        _vectors = new NativeArray<IoVector>(size * _vectorsPerSlot);
        for (int i = 0; i < size; i++)
        {
            _free[i] = i;
        }

        _freeCount = size;
    }

    public int Index { get; }

    public EventFd Doorbell { get; }

    public bool HasFreeSlot => _freeCount > 0;

    /// <summary>Milliseconds until a request that the rate limit holds back can be tried again; 0 when there is none.</summary>
    public int Wait { get; private set; }

    /// <summary>Takes up to a ring's worth of chains. False when the driver broke the ring.</summary>
    public bool Take(out bool any)
    {
        any = false;
        if (_held >= 0)
        {
            any = TryRelease();
        }

        for (int budget = _ring.Size; budget > 0 && _freeCount > 0 && _held < 0; budget--)
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

    /// <summary>The disk finished a request of this queue.</summary>
    public void Finish(int slot, DiskStatus status)
    {
        ref BlkRequest request = ref _slots[slot];
        if (status == DiskStatus.Ok && request.FlushAfter)
        {
            request.FlushAfter = false;
            _requests.Flush(_tagBase | (uint)slot);
            return;
        }

        if (status is DiskStatus.NoSpace or DiskStatus.IoError)
        {
            _device.Faults.Failed(status);
        }
        else if (status == DiskStatus.Ok && request.Type is BlkType.Out or BlkType.WriteZeroes)
        {
            _device.Faults.Written();
        }

        Complete(slot, status switch
        {
            DiskStatus.Ok => BlkStatus.Ok,
            DiskStatus.NotSupported => BlkStatus.Unsupported,
            _ => BlkStatus.IoError,
        });
    }

    /// <summary>Shows finished requests to the driver; true when it wants an interrupt.</summary>
    public bool Publish() => _ring.Publish();

    public void DisableNotifications() => _ring.DisableNotifications();

    /// <summary>True when chains arrived that can be taken now.</summary>
    public bool EnableNotifications() => _ring.EnableNotifications() && _freeCount > 0 && _held < 0;

    public void Dispose() => _vectors.Dispose();

    private bool Start(ushort head)
    {
        int slot = _free[_freeCount - 1];
        ref BlkRequest request = ref _slots[slot];
        Span<IoVector> vectors = _vectors.Span.Slice(slot * _vectorsPerSlot, _vectorsPerSlot);
        if (!BlkRequest.TryParse(_memory, _ring.Walk(head), head, vectors, out request))
        {
            return false;
        }

        if (request.Type is BlkType.Discard or BlkType.WriteZeroes && request.ReadableBytes == BlkRange.Length)
        {
            request.Range = BlkRange.Read(vectors[..request.ReadableVectors]);
        }

        _freeCount--;
        if (_device.Limiter is { } limiter && !Passes(limiter, request))
        {
            _held = slot;
            return true;
        }

        Begin(slot);
        return true;
    }

    private bool Passes(RateLimiter limiter, in BlkRequest request)
    {
        bool passes = limiter.TryTake(BytesMoved(request), RateLimiter.Now, out int wait);
        Wait = wait;
        return passes;
    }

    // What a request costs of the limit in bytes; each request is one operation, whatever it does. Zeros cost where the host has to write them.
    private ulong BytesMoved(in BlkRequest request) => request.Type switch
    {
        BlkType.In or BlkType.Out => request.ReadableBytes + request.WritableBytes,
        BlkType.WriteZeroes when request.Range.Sectors <= BlkConfig.MaxWriteZeroesSectors
            && _requests.WritesZeroesAsData((request.Range.Flags & BlkRange.Unmap) != 0) => request.Range.Sectors * 512UL,
        _ => 0,
    };

    private bool TryRelease()
    {
        int slot = _held;
        if (_device.Limiter is { } limiter && !Passes(limiter, _slots[slot]))
        {
            return false;
        }

        _held = -1;
        Wait = 0;
        Begin(slot);
        return true;
    }

    private void Begin(int slot)
    {
        ref BlkRequest request = ref _slots[slot];
        Span<IoVector> vectors = _vectors.Span.Slice(slot * _vectorsPerSlot, _vectorsPerSlot);
        BlkStatus? refused = request.TooManySegments ? BlkStatus.IoError : Queue(ref request, slot, vectors);
        if (refused is { } status)
        {
            Complete(slot, status);
        }
    }

    // Null when the disk has the request now; otherwise its status.
    private BlkStatus? Queue(ref BlkRequest request, int slot, ReadOnlySpan<IoVector> vectors)
    {
        ulong tag = _tagBase | (uint)slot;
        nint iovecs = _vectors.AddressOf(slot * _vectorsPerSlot);
        switch (request.Type)
        {
            case BlkType.In:
                if (!InRange(request.Sector, request.WritableBytes))
                {
                    return BlkStatus.IoError;
                }

                request.WrittenOnSuccess = (uint)request.WritableBytes;
                if (request.WritableBytes == 0)
                {
                    return BlkStatus.Ok;
                }

                _requests.Read(tag, request.Sector * 512, iovecs + (request.ReadableVectors * 16), request.WritableVectors, (uint)request.WritableBytes);
                return null;

            case BlkType.Out:
                if (_disk.ReadOnly || !InRange(request.Sector, request.ReadableBytes))
                {
                    return BlkStatus.IoError;
                }

                if (request.ReadableBytes == 0)
                {
                    return BlkStatus.Ok;
                }

                request.FlushAfter = WriteThrough;
                _requests.Write(tag, request.Sector * 512, iovecs, request.ReadableVectors, (uint)request.ReadableBytes);
                return null;

            case BlkType.Flush:
                _requests.Flush(tag);
                return null;

            case BlkType.GetId:
                request.WrittenOnSuccess = CopyId(vectors.Slice(request.ReadableVectors, request.WritableVectors));
                return BlkStatus.Ok;

            case BlkType.Discard or BlkType.WriteZeroes:
                return QueueRange(ref request, tag);

            default:
                return BlkStatus.Unsupported;
        }
    }

    // Discard and write-zeroes carry one BlkRange.
    private BlkStatus? QueueRange(ref BlkRequest request, ulong tag)
    {
        bool discard = request.Type == BlkType.Discard;
        if ((_features & (discard ? BlkFeatures.Discard : BlkFeatures.WriteZeroes)) == 0)
        {
            return BlkStatus.Unsupported;
        }

        if (_disk.ReadOnly || request.ReadableBytes != BlkRange.Length) // max_discard_seg and max_write_zeroes_seg are 1
        {
            return BlkStatus.IoError;
        }

        (ulong sector, uint sectors, uint flags) = request.Range;
        if ((flags & (discard ? ~0u : ~BlkRange.Unmap)) != 0)
        {
            return BlkStatus.Unsupported; // 5.2.6.2: unknown flags, and unmap in a discard
        }

        if (sectors > (discard ? BlkConfig.MaxDiscardSectors : BlkConfig.MaxWriteZeroesSectors) || !InRange(sector, sectors * 512UL))
        {
            return BlkStatus.IoError;
        }

        if (sectors == 0)
        {
            return BlkStatus.Ok;
        }

        request.FlushAfter = WriteThrough;
        if (discard)
        {
            _requests.Discard(tag, sector * 512, sectors * 512UL);
        }
        else
        {
            _requests.WriteZeroes(tag, sector * 512, sectors * 512UL, (flags & BlkRange.Unmap) != 0);
        }

        return null;
    }

    // 5.2.5.2 and 5.2.6.2: without FLUSH, or with write-back switched off, a finished write is on stable storage.
    private bool WriteThrough => (_features & BlkFeatures.Flush) == 0 || ((_features & BlkFeatures.ConfigWce) != 0 && !_device.Writeback);

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
        ref BlkRequest request = ref _slots[slot];
        _device.Counters.Count(request, status);
        _memory.TryWrite(request.Status, (byte)status);
        _ring.Complete(request.Head, status == BlkStatus.Ok ? request.WrittenOnSuccess + 1 : 1);
        _free[_freeCount++] = slot;
    }
}
