using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>How far a request came.</summary>
internal enum TransferStep : byte
{
    /// <summary>It is over.</summary>
    Done,

    /// <summary>The ring has its next step.</summary>
    Queued,

    /// <summary>It needs a bounce buffer and there is none; ask again when one was given back.</summary>
    NeedsBuffer,
}

/// <summary>
/// Takes requests on a raw file through a ring, step by step: short transfers go on, what the file system cannot do is done in another way, and what
/// O_DIRECT refuses goes through bounce buffers. A disk opened with O_DIRECT is never read or written through the page cache: a buffered write that
/// overlaps a direct one in time puts old sectors of its page back (open(2), O_DIRECT).
/// </summary>
internal sealed class UringTransfers : IDisposable
{
    private const int ZeroBytes = 256 * 1024;

    private readonly RawFileBackend _disk;
    private readonly IoUring _ring;
    private readonly BounceBuffers _buffers;
    private readonly NativeArray<IoVector> _zeroVectors;
    private NativeArray<byte>? _zeros;
    private bool _canPunch = true, _canZero = true;

    internal UringTransfers(RawFileBackend disk, IoUring ring, int depth)
    {
        _disk = disk;
        _ring = ring;
        File = disk.Direct ?? disk.Buffered;
        _buffers = new BounceBuffers((int)Math.Max(4096, Math.Max(disk.DirectMemoryAlign, disk.DirectOffsetAlign)));
        _zeroVectors = new NativeArray<IoVector>(depth);
    }

    /// <summary>The descriptor that all reads and writes use.</summary>
    internal FileDescriptorHandle File { get; }

    /// <summary>True when the ring holds steps that the kernel has not been given.</summary>
    internal bool Unsubmitted { get; set; }

    /// <summary>The best way to write zeros, as far as is known.</summary>
    internal RawOperation ZeroOperation(bool mayUnmap) => mayUnmap && _disk.MayDiscard && _canPunch ? RawOperation.ZeroByPunch
        : _canZero ? RawOperation.ZeroRange
        : RawOperation.ZeroByWriting;

    /// <summary>True when the range is whole blocks of O_DIRECT, or O_DIRECT is not used.</summary>
    internal bool IsWholeBlocks(ulong offset, ulong length) => _disk.Direct is null || ((offset | length) & (_disk.DirectOffsetAlign - 1)) == 0;

    /// <summary>True when the file takes the request with the memory it came with.</summary>
    internal bool FitsAsItIs(in RawRequest r)
    {
        if (_disk.Direct is null)
        {
            return true;
        }

        uint range = _disk.DirectOffsetAlign - 1, memory = _disk.DirectMemoryAlign - 1;
        ulong bits = (r.Offset | r.Remaining) & range;
        if (r.Operation != RawOperation.ZeroByWriting)
        {
            foreach (ref readonly IoVector v in HostSpan.Vectors(r.Vectors, r.Count))
            {
                bits |= ((ulong)v.Base & memory) | (v.Length & range);
            }
        }

        return bits == 0;
    }

    /// <summary>Queues the next step of a request.</summary>
    internal TransferStep Issue(int slot, ref RawRequest r)
    {
        if (r.Transfers)
        {
            return r.Buffer >= 0 || !FitsAsItIs(r) ? IssueBounced(slot, ref r) : IssueAsItIs(slot, ref r);
        }

        if (r.Operation == RawOperation.Flush)
        {
            _ring.DataSync(_disk.Buffered, (uint)slot);
        }
        else
        {
            FallocateModes mode = r.Operation == RawOperation.ZeroRange ? FallocateModes.ZeroRange : FallocateModes.PunchHole;
            _ring.Fallocate(_disk.Buffered, mode | FallocateModes.KeepSize, r.Offset, r.Remaining, (uint)slot);
        }

        Unsubmitted = true;
        return TransferStep.Queued;
    }

    /// <summary>A step of the request ended with so many bytes, or -errno.</summary>
    internal TransferStep Advance(int slot, ref RawRequest r, int result, out DiskStatus status)
    {
        status = DiskStatus.Ok;
        if (result is -Errno.EINTR or -Errno.EAGAIN)
        {
            return Issue(slot, ref r);
        }

        if (result < 0)
        {
            return Fail(slot, ref r, -result, out status);
        }

        if (!r.Transfers)
        {
            return TransferStep.Done;
        }

        uint done = (uint)result;
        if (_disk.Direct is not null)
        {
            done -= done % _disk.DirectOffsetAlign; // Part of a block is done again, whole: nothing else goes past the page cache.
        }

        if (done == 0)
        {
            status = DiskStatus.IoError; // The file ended before the disk did: it was truncated under us.
            return TransferStep.Done;
        }

        if (r.Buffer >= 0)
        {
            return AdvanceBounced(slot, ref r, done);
        }

        r.Skip(done);
        return r.Remaining == 0 ? TransferStep.Done : Issue(slot, ref r);
    }

    /// <summary>The request is over; true when a bounce buffer came back.</summary>
    internal bool Release(ref RawRequest r)
    {
        if (r.Buffer < 0)
        {
            return false;
        }

        _buffers.Return(r.Buffer);
        r.Buffer = -1;
        return true;
    }

    public void Dispose()
    {
        _buffers.Dispose();
        _zeroVectors.Dispose();
        _zeros?.Dispose();
    }

    private TransferStep IssueAsItIs(int slot, ref RawRequest r)
    {
        if (r.Operation == RawOperation.Read)
        {
            _ring.Read(File, r.Vectors, r.Count, r.Offset, (uint)slot);
        }
        else if (r.Operation == RawOperation.Write)
        {
            _ring.Write(File, r.Vectors, r.Count, r.Offset, (uint)slot);
        }
        else
        {
            _zeros ??= new NativeArray<byte>(ZeroBytes, 4096);
            _zeroVectors.Span[slot] = new IoVector(_zeros.AddressOf(0), (nuint)Math.Min(r.Remaining, ZeroBytes));
            _ring.Write(File, _zeroVectors.AddressOf(slot), 1, r.Offset, (uint)slot);
        }

        Unsubmitted = true;
        return TransferStep.Queued;
    }

    // Begins the next piece, or goes on with one that came back short.
    private TransferStep IssueBounced(int slot, ref RawRequest r)
    {
        if (r.Buffer < 0)
        {
            r.Buffer = _buffers.Take();
            if (r.Buffer < 0)
            {
                return TransferStep.NeedsBuffer;
            }

            BeginPiece(ref r);
        }

        nint vector = _buffers.Vector(r.Buffer, r.BlocksDone, r.BlocksLength - r.BlocksDone);
        if (r.Operation == RawOperation.Read || r.Filling)
        {
            _ring.Read(File, vector, 1, r.BlocksAt + r.BlocksDone, (uint)slot);
        }
        else
        {
            _ring.Write(File, vector, 1, r.BlocksAt + r.BlocksDone, (uint)slot);
        }

        Unsubmitted = true;
        return TransferStep.Queued;
    }

    private void BeginPiece(ref RawRequest r)
    {
        ulong block = _disk.DirectOffsetAlign, end = r.Offset + r.Remaining;
        r.BlocksAt = r.Offset - (r.Offset % block);
        ulong blocksEnd = Math.Min((end + block - 1) / block * block, r.BlocksAt + BounceBuffers.BufferBytes);
        r.BlocksLength = (uint)(blocksEnd - r.BlocksAt);
        r.BlocksDone = 0;
        r.PieceLength = (uint)(Math.Min(end, blocksEnd) - r.Offset);
        // What the request does not cover of its blocks is read first, and written back as it was.
        r.Filling = r.Operation != RawOperation.Read && r.PieceLength != r.BlocksLength;
        if (r.Operation != RawOperation.Read && !r.Filling)
        {
            r.CopyTo(Piece(r));
        }
    }

    private TransferStep AdvanceBounced(int slot, ref RawRequest r, uint done)
    {
        r.BlocksDone += done;
        if (r.BlocksDone < r.BlocksLength)
        {
            return IssueBounced(slot, ref r);
        }

        if (r.Filling)
        {
            r.CopyTo(Piece(r));
            r.Filling = false;
            r.BlocksDone = 0;
            return IssueBounced(slot, ref r);
        }

        if (r.Operation == RawOperation.Read)
        {
            r.CopyFrom(Piece(r));
        }

        r.Skip(r.PieceLength);
        if (r.Remaining == 0)
        {
            return TransferStep.Done;
        }

        BeginPiece(ref r);
        return IssueBounced(slot, ref r);
    }

    private Span<byte> Piece(in RawRequest r) => _buffers.Bytes(r.Buffer).Slice((int)(r.Offset - r.BlocksAt), (int)r.PieceLength);

    private TransferStep Fail(int slot, ref RawRequest r, int errno, out DiskStatus status)
    {
        bool unsupported = errno is Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.ENODEV or Errno.EINVAL;
        status = errno is Errno.ENOSPC or Errno.EDQUOT ? DiskStatus.NoSpace : DiskStatus.IoError;
        if (!unsupported)
        {
            return TransferStep.Done;
        }

        switch (r.Operation)
        {
            case RawOperation.Discard:
                status = DiskStatus.Ok; // A hint that the file system cannot take.
                return TransferStep.Done;
            case RawOperation.ZeroByPunch:
                _canPunch = errno == Errno.EINVAL && _canPunch;
                r.Operation = RawOperation.ZeroRange;
                break;
            case RawOperation.ZeroRange:
                _canZero = errno == Errno.EINVAL && _canZero;
                r.Operation = RawOperation.ZeroByWriting;
                break;
            default:
                return TransferStep.Done;
        }

        return Issue(slot, ref r);
    }
}
