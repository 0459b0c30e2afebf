using System.Diagnostics;
using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>Requests of one I/O thread on a raw file, over io_uring. Short transfers are continued; a read beyond the file's end is an error.</summary>
internal sealed class RawFileQueue : IDiskQueue
{
    private const ulong WakeTag = 1UL << 63;
    private const int ZeroBytes = 256 * 1024, LongestAtOnce = 64 * 1024, SlowMicroseconds = 100;

    private readonly RawFileBackend _disk;
    private readonly IoUring _ring;
    private readonly Request[] _requests;
    private readonly int[] _free;
    private readonly IoCompletion[] _finished;
    private readonly NativeArray<IoVector> _zeroVectors;
    private readonly List<EventFd> _watched = [];
    private readonly List<bool> _armed = [];
    private NativeArray<byte>? _zeros;
    private int _freeCount;
    private readonly (int Slot, DiskStatus Status)[] _atOnce; // ended before the ring saw them; their slots are taken until reaped
    private int _atOnceCount;
    private readonly AtOnce _bufferedReads, _direct;
    private long _ringUntil;
    private int _slow;
    private int _unsubmitted;
    private bool _disposed;
    private bool _canPunch = true, _canZero = true;

    internal RawFileQueue(RawFileBackend disk, int depth)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        _disk = disk;
        Depth = depth;
        _bufferedReads = BlockFile.TakesNowait(disk.Buffered) ? AtOnce.IfThere : AtOnce.Always;
        _direct = disk.Direct is { } direct && !BlockFile.TakesNowait(direct) ? AtOnce.Always : AtOnce.Never;
        _ring = IoUringPool.Rent();
        _requests = new Request[depth];
        _free = new int[depth];
        _finished = new IoCompletion[Math.Min(depth, 64)];
        _atOnce = new (int Slot, DiskStatus Status)[depth];
        _zeroVectors = new NativeArray<IoVector>(depth);
        for (int i = 0; i < depth; i++)
        {
            _free[i] = i;
        }

        _freeCount = depth;
    }

    /// <summary>Whether a small transfer is done on this thread, without the ring.</summary>
    private enum AtOnce : byte
    {
        Never,
        IfThere,
        Always,
    }

    private enum Operation : byte
    {
        Read,
        Write,
        Flush,
        Discard,
        ZeroRange,
        ZeroByPunch,
        ZeroByWriting,
    }

    public int Depth { get; }

    public int InFlight => Depth - _freeCount;

    public void Read(ulong tag, ulong offset, nint iovecs, int count, uint length) => Start(tag, Operation.Read, offset, length, iovecs, count);

    public void Write(ulong tag, ulong offset, nint iovecs, int count, uint length) => Start(tag, Operation.Write, offset, length, iovecs, count);

    public void Flush(ulong tag) => Start(tag, Operation.Flush, 0, 0, 0, 0);

    public void Discard(ulong tag, ulong offset, ulong length) => Start(tag, Operation.Discard, offset, length, 0, 0);

    public void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap) => Start(
        tag, mayUnmap && _disk.MayDiscard && _canPunch ? Operation.ZeroByPunch : _canZero ? Operation.ZeroRange : Operation.ZeroByWriting, offset, length, 0, 0);

    public void Submit()
    {
        if (_unsubmitted > 0)
        {
            _unsubmitted = 0;
            _ring.Submit();
        }
    }

    public int Reap(Span<DiskCompletion> completions)
    {
        int count = 0;
        while (_atOnceCount > 0 && count < completions.Length)
        {
            (int slot, DiskStatus status) = _atOnce[--_atOnceCount];
            completions[count++] = End(slot, status);
        }

        while (count < completions.Length)
        {
            int taken = _ring.Reap(_finished.AsSpan(0, Math.Min(_finished.Length, completions.Length - count)));
            if (taken == 0)
            {
                break;
            }

            for (int i = 0; i < taken; i++)
            {
                if ((_finished[i].Tag & WakeTag) != 0)
                {
                    _armed[(int)(_finished[i].Tag & ~WakeTag)] = false;
                }
                else if (Advance((int)_finished[i].Tag, _finished[i].Result, out DiskStatus status))
                {
                    completions[count++] = End((int)_finished[i].Tag, status);
                }
            }
        }

        Submit();
        return count;
    }

    public void Watch(EventFd doorbell)
    {
        _watched.Add(doorbell);
        _armed.Add(false);
    }

    public void Wait()
    {
        for (int i = 0; i < _watched.Count; i++)
        {
            if (!_armed[i])
            {
                _ring.PollReadable(_watched[i].Handle, WakeTag | (uint)i);
                _armed[i] = true;
            }
        }

        if (_atOnceCount == 0)
        {
            _unsubmitted = 0;
            _ring.SubmitAndWait();
        }
    }

    /// <summary>Waits until nothing is in flight, then gives the ring back (which ends armed polls).</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        Span<DiskCompletion> ignored = stackalloc DiskCompletion[16];
        while (InFlight > 0)
        {
            if (Reap(ignored) == 0)
            {
                _ring.SubmitAndWait();
            }
        }

        IoUringPool.Return(_ring);
        _zeroVectors.Dispose();
        _zeros?.Dispose();
    }

    private void Start(ulong tag, Operation operation, ulong offset, ulong length, nint iovecs, int count)
    {
        if (_freeCount == 0)
        {
            throw new InvalidOperationException("More requests than the queue's depth.");
        }

        int slot = _free[--_freeCount];
        _requests[slot] = new Request { Tag = tag, Operation = operation, Offset = offset, Remaining = length, Vectors = iovecs, Count = count };
        if (operation > Operation.Write || length > LongestAtOnce || !TryAtOnce(slot))
        {
            Issue(slot);
        }
    }

    private DiskCompletion End(int slot, DiskStatus status)
    {
        _free[_freeCount++] = slot;
        return new DiskCompletion(_requests[slot].Tag, status);
    }

    /// <summary>
    /// A small transfer from or to the page cache, or a file system in memory, is a copy, which costs less than the way through the ring. Worse, ext4
    /// takes no buffered write from io_uring without handing it to a kernel worker, and some file systems (tmpfs, for one) take nothing. So it is done
    /// here; a read of what is not cached stays with the ring. Where the kernel waits after all (dirty page limits, a file system that has to ask another
    /// machine) the ring takes over for a while: two slow ones in a row, since one may only have lost its processor.
    /// </summary>
    private bool TryAtOnce(int slot)
    {
        ref Request r = ref _requests[slot];
        FileDescriptorHandle file = FileFor(r);
        bool read = r.Operation == Operation.Read;
        AtOnce how = !ReferenceEquals(file, _disk.Buffered) ? _direct : read ? _bufferedReads : AtOnce.Always;
        long begin = how == AtOnce.Always ? Stopwatch.GetTimestamp() : 0;
        if (how == AtOnce.Never || (how == AtOnce.Always && begin < _ringUntil))
        {
            return false;
        }

        int result = read ? BlockFile.ReadAt(file, r.Vectors, r.Count, r.Offset, nowait: how == AtOnce.IfThere) : BlockFile.WriteAt(file, r.Vectors, r.Count, r.Offset);
        if (how == AtOnce.Always)
        {
            Judge(begin);
        }
        else if (result <= 0)
        {
            return false;
        }

        if (Advance(slot, result, out DiskStatus status))
        {
            _atOnce[_atOnceCount++] = (slot, status);
        }

        return true;
    }

    private void Judge(long begin)
    {
        long end = Stopwatch.GetTimestamp();
        _slow = end - begin > Stopwatch.Frequency * SlowMicroseconds / 1_000_000 ? _slow + 1 : 0;
        if (_slow > 1)
        {
            _ringUntil = end + (Stopwatch.Frequency / 10);
            _slow = 0;
        }
    }

    private void Issue(int slot)
    {
        ref Request r = ref _requests[slot];
        ulong tag = (uint)slot;
        switch (r.Operation)
        {
            case Operation.Read:
                _ring.Read(FileFor(r), r.Vectors, r.Count, r.Offset, tag);
                break;
            case Operation.Write:
                _ring.Write(FileFor(r), r.Vectors, r.Count, r.Offset, tag);
                break;
            case Operation.Flush:
                _ring.DataSync(_disk.Buffered, tag);
                break;
            case Operation.Discard or Operation.ZeroByPunch:
                _ring.Fallocate(_disk.Buffered, FallocateModes.PunchHole | FallocateModes.KeepSize, r.Offset, r.Remaining, tag);
                break;
            case Operation.ZeroRange:
                _ring.Fallocate(_disk.Buffered, FallocateModes.ZeroRange | FallocateModes.KeepSize, r.Offset, r.Remaining, tag);
                break;
            case Operation.ZeroByWriting:
                _zeros ??= new NativeArray<byte>(ZeroBytes, 4096);
                _zeroVectors.Span[slot] = new IoVector(_zeros.AddressOf(0), (nuint)Math.Min(r.Remaining, ZeroBytes));
                _ring.Write(_disk.Buffered, _zeroVectors.AddressOf(slot), 1, r.Offset, tag);
                break;
        }

        _unsubmitted++;
    }

    // O_DIRECT only when memory and range satisfy it; the buffered descriptor takes the rest.
    private FileDescriptorHandle FileFor(in Request r)
    {
        if (_disk.Direct is not { } direct)
        {
            return _disk.Buffered;
        }

        uint range = _disk.DirectOffsetAlign - 1, memory = _disk.DirectMemoryAlign - 1;
        ulong bits = (r.Offset | r.Remaining) & range;
        foreach (ref readonly IoVector v in HostSpan.Vectors(r.Vectors, r.Count))
        {
            bits |= ((ulong)v.Base & memory) | (v.Length & range);
        }

        return bits == 0 ? direct : _disk.Buffered;
    }

    // True when the request is over; otherwise its next step was queued.
    private bool Advance(int slot, int result, out DiskStatus status)
    {
        ref Request r = ref _requests[slot];
        status = DiskStatus.Ok;
        if (result is -Errno.EINTR or -Errno.EAGAIN)
        {
            Issue(slot);
            return false;
        }

        if (result < 0)
        {
            return Fail(slot, -result, out status);
        }

        if (r.Operation is Operation.Flush or Operation.Discard or Operation.ZeroByPunch or Operation.ZeroRange)
        {
            return true;
        }

        if (result == 0 && r.Remaining > 0)
        {
            status = DiskStatus.IoError; // The file ended before the disk did: it was truncated under us.
            return true;
        }

        r.Offset += (uint)result;
        r.Remaining -= Math.Min((uint)result, r.Remaining);
        if (r.Remaining == 0)
        {
            return true;
        }

        if (r.Operation != Operation.ZeroByWriting)
        {
            SkipDone(ref r, (uint)result);
        }

        Issue(slot);
        return false;
    }

    private bool Fail(int slot, int errno, out DiskStatus status)
    {
        ref Request r = ref _requests[slot];
        bool unsupported = errno is Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.ENODEV or Errno.EINVAL;
        status = errno is Errno.ENOSPC or Errno.EDQUOT ? DiskStatus.NoSpace : DiskStatus.IoError;
        if (!unsupported)
        {
            return true;
        }

        switch (r.Operation)
        {
            case Operation.Discard:
                status = DiskStatus.Ok; // A hint that the file system cannot take.
                return true;
            case Operation.ZeroByPunch:
                _canPunch = errno == Errno.EINVAL && _canPunch;
                r.Operation = Operation.ZeroRange;
                break;
            case Operation.ZeroRange:
                _canZero = errno == Errno.EINVAL && _canZero;
                r.Operation = Operation.ZeroByWriting;
                break;
            default:
                return true;
        }

        Issue(slot);
        return false;
    }

    private static void SkipDone(ref Request r, nuint done)
    {
        Span<IoVector> vectors = HostSpan.Vectors(r.Vectors, r.Count);
        int skip = 0;
        while (skip < vectors.Length && vectors[skip].Length <= done)
        {
            done -= vectors[skip++].Length;
        }

        if (skip < vectors.Length)
        {
            vectors[skip] = new IoVector(vectors[skip].Base + (nint)done, vectors[skip].Length - done);
        }

        r.Vectors += skip * 16;
        r.Count -= skip;
    }

    private struct Request
    {
        public ulong Tag;
        public Operation Operation;
        public ulong Offset;
        public ulong Remaining;
        public nint Vectors;
        public int Count;
    }
}
