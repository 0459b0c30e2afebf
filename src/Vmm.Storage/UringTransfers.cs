using System.Runtime.CompilerServices;
using Vmm.Interop;
using Vmm.Io;

[assembly: InternalsVisibleTo("Vmm.Storage.Tests")]
[assembly: InternalsVisibleTo("vmm-fuzz")]

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

    /// <summary>A flush of the file is next; issue it when it is the only one in flight.</summary>
    NeedsFlush,
}

/// <summary>
/// Takes requests on a raw file through a ring, step by step: short transfers go on, what the file system cannot do is done in another way,
/// and what O_DIRECT refuses goes through bounce buffers. A disk opened with O_DIRECT is never read or written through the page cache: a
/// buffered write that overlaps a direct one in time puts old sectors of its page back (open(2), O_DIRECT).
/// </summary>
internal sealed class UringTransfers : IDisposable
{
    private const int ZeroBytes = 256 * 1024, VectorBytes = 16;

    private readonly RawFileBackend _disk;
    private readonly IoLoop _loop;
    private readonly BounceBuffers _buffers;
    private readonly ScratchVectors _scratch = new();
    private NativeArray<byte>? _zeros;
    private bool _canPunch = true, _canZero = true;

    internal UringTransfers(RawFileBackend disk, IoLoop loop)
    {
        _disk = disk;
        _loop = loop;
        File = disk.Direct ?? disk.Buffered;
        _buffers = new BounceBuffers((int)Math.Max(4096, Math.Max(disk.DirectMemoryAlign, disk.DirectOffsetAlign)));
    }

    /// <summary>The descriptor that all reads and writes use.</summary>
    internal FileDescriptorHandle File { get; }

    /// <summary>The best way to write zeros, as far as is known.</summary>
    internal RawOperation ZeroOperation(bool mayUnmap) => mayUnmap && _disk.MayDiscard && _canPunch ? RawOperation.ZeroByPunch
        : _canZero ? RawOperation.ZeroRange
        : RawOperation.ZeroByWriting;

    /// <summary>True when the range is whole blocks of O_DIRECT, or O_DIRECT is not used.</summary>
    internal bool IsWholeBlocks(ulong offset, ulong length) =>
        _disk.Direct is null || ((offset | length) & (_disk.DirectOffsetAlign - 1)) == 0;

    /// <summary>A request begins: nothing of it is done.</summary>
    internal void Begin(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress; // written in place: it is too large to be copied for each request
        r.Operation = request.Kind switch
        {
            BlockKind.Read => RawOperation.Read,
            BlockKind.Write => RawOperation.Write,
            BlockKind.Discard => RawOperation.Discard,
            BlockKind.WriteZeroes => ZeroOperation((request.Flags & BlockFlags.MayUnmap) != 0),
            _ => RawOperation.Flush,
        };
        r.Offset = request.Offset;
        r.Remaining = request.Length;
        r.Vector = 0;
        r.VectorDone = 0;
        r.SyncAfter = (request.Flags & BlockFlags.Fua) != 0;
        r.IsFlushing = false;
        r.Ticket = -1;
        r.Buffer = -1;
        r.Fits = FitsAsItIs(request);
    }

    /// <summary>Queues the next step of a request.</summary>
    internal TransferStep Issue(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        if (r.Transfers)
        {
            return r.Buffer >= 0 || !r.Fits ? IssueBounced(request) : IssueAsItIs(request);
        }

        if (r.Operation == RawOperation.Flush)
        {
            _disk.IssueFlush(_loop, request, _disk.Buffered);
        }
        else
        {
            FallocateModes mode = r.Operation == RawOperation.ZeroRange ? FallocateModes.ZeroRange : FallocateModes.PunchHole;
            _loop.Fallocate(request, _disk.Buffered, mode | FallocateModes.KeepSize, r.Offset, r.Remaining);
        }

        return TransferStep.Queued;
    }

    /// <summary>A step of the request ended with so many bytes, or -errno.</summary>
    internal TransferStep Advance(BlockRequest request, int result, out DiskStatus status)
    {
        TransferStep step = AdvanceTransfer(request, result, out status);
        ref RawProgress r = ref request.Progress;
        if (step != TransferStep.Done || status != DiskStatus.Ok || !r.SyncAfter)
        {
            return step;
        }

        r.SyncAfter = false;
        r.Operation = RawOperation.Flush;
        return TransferStep.NeedsFlush;
    }

    /// <summary>The request is over; true when a bounce buffer came back.</summary>
    internal bool Release(ref RawProgress r)
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
        _scratch.Dispose();
        _zeros?.Dispose();
    }

    private TransferStep AdvanceTransfer(BlockRequest request, int result, out DiskStatus status)
    {
        ref RawProgress r = ref request.Progress;
        status = DiskStatus.Ok;
        if (result is -Errno.EINTR or -Errno.EAGAIN)
        {
            return Issue(request);
        }

        if (result < 0)
        {
            return Fail(request, -result, out status);
        }

        if (!r.Transfers)
        {
            return TransferStep.Done;
        }

        uint done = (uint)result;
        uint part = _disk.Direct is null ? 0 : done % _disk.DirectOffsetAlign;
        if (_disk.IsImage && (done == 0 || part != 0) && (r.Operation == RawOperation.Read || r.Filling))
        {
            return ReadBehindEnd(request, done, out status);
        }

        done -= part; // Part of a block is done again, whole: nothing else goes past the page cache.
        if (done == 0)
        {
            status = DiskStatus.IoError; // The file ended before the disk did: it was truncated under us.
            return TransferStep.Done;
        }

        if (r.Buffer >= 0)
        {
            return AdvanceBounced(request, done);
        }

        r.Skip(request.Vectors, done);
        if (r.Remaining == 0)
        {
            return TransferStep.Done;
        }

        r.Fits = FitsAsItIs(request);
        return Issue(request);
    }

    // An image's file ends behind the next "done" bytes, perhaps inside a block: the rest of what is being read is zeros.
    private TransferStep ReadBehindEnd(BlockRequest request, uint done, out DiskStatus status)
    {
        status = DiskStatus.Ok;
        ref RawProgress r = ref request.Progress;
        ulong end = done + (r.Buffer < 0 ? r.Offset : r.BlocksAt + r.BlocksDone);
        if (end < _disk.LeastLength)
        {
            status = DiskStatus.IoError; // it was cut: what lay there is lost, and not zeros
            return TransferStep.Done;
        }

        if (r.Buffer < 0)
        {
            r.Skip(request.Vectors, done);
            r.FillWithZeros(request.Vectors);
            return TransferStep.Done;
        }

        _buffers.Bytes(r.Buffer)[(int)(r.BlocksDone + done)..(int)r.BlocksLength].Clear();
        return AdvanceBounced(request, r.BlocksLength - r.BlocksDone);
    }

    // True when the file takes the rest of the request with the memory it came with.
    private bool FitsAsItIs(BlockRequest request)
    {
        if (_disk.Direct is null)
        {
            return true;
        }

        ref RawProgress r = ref request.Progress;
        uint range = _disk.DirectOffsetAlign - 1, memory = _disk.DirectMemoryAlign - 1;
        ulong bits = (r.Offset | r.Remaining) & range;
        if (r.Operation is RawOperation.Read or RawOperation.Write)
        {
            bits |= (r.VectorDone & memory) | (r.VectorDone & range);
            foreach (ref readonly IoVector v in request.Vectors[r.Vector..])
            {
                bits |= ((ulong)v.Base & memory) | (v.Length & range);
            }
        }

        return bits == 0;
    }

    private TransferStep IssueAsItIs(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        nint vectors = request.VectorAddress + (r.Vector * VectorBytes);
        int count = request.VectorCount - r.Vector;
        if (r.Operation == RawOperation.ZeroByWriting)
        {
            _zeros ??= new NativeArray<byte>(ZeroBytes, 4096);
            vectors = _scratch.Set(request.Number, new IoVector(_zeros.AddressOf(0), (nuint)Math.Min(r.Remaining, ZeroBytes)));
            count = 1;
        }
        else if (r.VectorDone > 0)
        {
            // A short transfer ended inside a vector: its rest first, the vectors behind it in the next step.
            IoVector part = request.Vectors[r.Vector];
            vectors = _scratch.Set(request.Number, new IoVector(part.Base + (nint)r.VectorDone, part.Length - r.VectorDone));
            count = 1;
        }

        if (r.Operation == RawOperation.Read)
        {
            _loop.Read(request, File, vectors, count, r.Offset);
        }
        else
        {
            _loop.Write(request, File, vectors, count, r.Offset);
        }

        return TransferStep.Queued;
    }

    // Begins the next piece, or goes on with one that came back short.
    private TransferStep IssueBounced(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
        if (r.Buffer < 0)
        {
            r.Buffer = _buffers.Take();
            if (r.Buffer < 0)
            {
                return TransferStep.NeedsBuffer;
            }

            BeginPiece(request);
        }

        nint vector = _buffers.Vector(r.Buffer, r.BlocksDone, r.BlocksLength - r.BlocksDone);
        if (r.Operation == RawOperation.Read || r.Filling)
        {
            _loop.Read(request, File, vector, 1, r.BlocksAt + r.BlocksDone);
        }
        else
        {
            _loop.Write(request, File, vector, 1, r.BlocksAt + r.BlocksDone);
        }

        return TransferStep.Queued;
    }

    private void BeginPiece(BlockRequest request)
    {
        ref RawProgress r = ref request.Progress;
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
            r.CopyTo(request.Vectors, Piece(r));
        }
    }

    private TransferStep AdvanceBounced(BlockRequest request, uint done)
    {
        ref RawProgress r = ref request.Progress;
        r.BlocksDone += done;
        if (r.BlocksDone < r.BlocksLength)
        {
            return IssueBounced(request);
        }

        if (r.Filling)
        {
            r.CopyTo(request.Vectors, Piece(r));
            r.Filling = false;
            r.BlocksDone = 0;
            return IssueBounced(request);
        }

        if (r.Operation == RawOperation.Read)
        {
            r.CopyFrom(request.Vectors, Piece(r));
        }

        r.Skip(request.Vectors, r.PieceLength);
        if (r.Remaining == 0)
        {
            return TransferStep.Done;
        }

        BeginPiece(request);
        return IssueBounced(request);
    }

    private Span<byte> Piece(in RawProgress r) => _buffers.Bytes(r.Buffer).Slice((int)(r.Offset - r.BlocksAt), (int)r.PieceLength);

    private TransferStep Fail(BlockRequest request, int errno, out DiskStatus status)
    {
        ref RawProgress r = ref request.Progress;
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
                r.Fits = FitsAsItIs(request);
                break;
            default:
                return TransferStep.Done;
        }

        return Issue(request);
    }
}
