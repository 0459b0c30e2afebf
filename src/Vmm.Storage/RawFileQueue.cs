using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// Requests of one I/O thread on a raw file, over io_uring: slots, order and sleep. <see cref="UringTransfers"/> moves the bytes. A request passes up to two
/// gates first: the ranges of other writes in flight (<see cref="WriteRanges"/>), then a bounce buffer. Who holds a buffer waits for nothing but the kernel.
/// </summary>
internal sealed class RawFileQueue : IDiskQueue
{
    private const ulong WakeTag = 1UL << 63, GrantTag = WakeTag | (1UL << 62);

    private readonly RawFileBackend _disk;
    private readonly IoUring _ring;
    private bool _disposed;
    private readonly UringTransfers _transfers;
    private readonly AtOncePolicy _atOnce;
    private readonly RawRequest[] _requests;
    private readonly int[] _free;
    private readonly IoCompletion[] _finished;
    private readonly (int Slot, DiskStatus Status)[] _ended; // ended before the ring saw them; their slots are taken until reaped
    private readonly SlotList _waitForRange, _waitForBuffer;
    private readonly List<EventFd> _watched = [];
    private readonly List<bool> _armed = [];
    private readonly EventFd? _granted; // rung when a request of this queue may run; null when no write of this disk can conflict
    private bool _grantArmed;
    private int _freeCount, _endedCount;

    internal RawFileQueue(RawFileBackend disk, int depth)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        _disk = disk;
        Depth = depth;
        _ring = IoUringPool.Rent();
        _transfers = new UringTransfers(disk, _ring, depth);
        _atOnce = new AtOncePolicy(disk);
        _requests = new RawRequest[depth];
        _free = new int[depth];
        _finished = new IoCompletion[Math.Min(depth, 64)];
        _ended = new (int Slot, DiskStatus Status)[depth];
        _waitForRange = new SlotList(depth);
        _waitForBuffer = new SlotList(depth);
        for (int i = 0; i < depth; i++)
        {
            _free[i] = i;
        }

        _freeCount = depth;
        if (disk.Ranges is { } ranges)
        {
            _granted = new EventFd();
            ranges.Reserve(depth);
        }
    }

    public int Depth { get; }

    public int InFlight => Depth - _freeCount;

    public void Read(ulong tag, ulong offset, nint iovecs, int count, uint length) => Start(tag, RawOperation.Read, offset, length, iovecs, count);

    public void Write(ulong tag, ulong offset, nint iovecs, int count, uint length) => Start(tag, RawOperation.Write, offset, length, iovecs, count);

    public void Flush(ulong tag) => Start(tag, RawOperation.Flush, 0, 0, 0, 0);

    public void Discard(ulong tag, ulong offset, ulong length) => Start(tag, RawOperation.Discard, offset, length, 0, 0);

    public void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap) =>
        Start(tag, _transfers.ZeroOperation(mayUnmap), offset, length, 0, 0);

    public bool WritesZeroesAsData(bool mayUnmap) => _transfers.ZeroOperation(mayUnmap) == RawOperation.ZeroByWriting;

    public void Submit()
    {
        if (_transfers.Unsubmitted)
        {
            _transfers.Unsubmitted = false;
            _ring.Submit();
        }
    }

    public int Reap(Span<DiskCompletion> completions)
    {
        StartGranted();
        int count = 0;
        while (_endedCount > 0 && count < completions.Length)
        {
            (int slot, DiskStatus status) = _ended[--_endedCount];
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
                if (!TryTakeWake(_finished[i].Tag) && Advance((int)_finished[i].Tag, _finished[i].Result, out DiskStatus status))
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

        WaitForCompletion();
    }

    public void WaitForCompletion()
    {
        if (_waitForRange.Count > 0 && !_grantArmed)
        {
            _ring.PollReadable(_granted!.Handle, GrantTag);
            _grantArmed = true;
        }

        if (_endedCount == 0)
        {
            _transfers.Unsubmitted = false;
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
                WaitForCompletion();
            }
        }

        _disk.Ranges?.Return(Depth);
        IoUringPool.Return(_ring);
        _transfers.Dispose();
        _granted?.Dispose();
    }

    private void Start(ulong tag, RawOperation operation, ulong offset, ulong length, nint iovecs, int count)
    {
        if (_freeCount == 0)
        {
            throw new InvalidOperationException("More requests than the queue's depth.");
        }

        int slot = _free[--_freeCount];
        _requests[slot] = new RawRequest
        {
            Tag = tag,
            Operation = operation,
            Offset = offset,
            Remaining = length,
            Vectors = iovecs,
            Count = count,
            Ticket = -1,
            Buffer = -1,
        };
        if (MayRun(slot))
        {
            Run(slot);
        }
        else
        {
            _waitForRange.Add(slot);
        }
    }

    // Registers a write among those of the disk, where a read-modify-write is possible at all.
    private bool MayRun(int slot)
    {
        ref RawRequest r = ref _requests[slot];
        if (_granted is null || r.Operation is RawOperation.Read or RawOperation.Flush)
        {
            return true;
        }

        ulong block = _disk.DirectOffsetAlign;
        ulong begin = r.Offset - (r.Offset % block), end = (r.Offset + r.Remaining + block - 1) / block * block;
        // Zeros may have to be written in the end. A discard never is.
        bool exclusive = r.Operation != RawOperation.Discard && !_transfers.IsWholeBlocks(r.Offset, r.Remaining);
        r.Ticket = _disk.Ranges!.Enter(begin, end, exclusive, _granted, out bool now);
        return now;
    }

    private void StartGranted()
    {
        if (_waitForRange.Count == 0)
        {
            return;
        }

        _granted!.TryTake(out _);
        for (int i = 0; i < _waitForRange.Count;)
        {
            int slot = _waitForRange[i];
            if (_disk.Ranges!.IsGranted(_requests[slot].Ticket))
            {
                _waitForRange.RemoveAt(i);
                Run(slot);
            }
            else
            {
                i++;
            }
        }
    }

    private void Run(int slot)
    {
        ref RawRequest r = ref _requests[slot];
        if (r.Operation <= RawOperation.Write && r.Remaining <= AtOncePolicy.Longest && _transfers.FitsAsItIs(r)
            && _atOnce.TryTransfer(r.Operation == RawOperation.Read, _transfers.File, r.Vectors, r.Count, r.Offset, out int result))
        {
            if (Advance(slot, result, out DiskStatus status))
            {
                _ended[_endedCount++] = (slot, status);
            }

            return;
        }

        Park(slot, _transfers.Issue(slot, ref r));
    }

    // True when the request is over; otherwise its next step was queued.
    private bool Advance(int slot, int result, out DiskStatus status)
    {
        TransferStep step = _transfers.Advance(slot, ref _requests[slot], result, out status);
        Park(slot, step);
        return step == TransferStep.Done;
    }

    private void Park(int slot, TransferStep step)
    {
        if (step == TransferStep.NeedsBuffer)
        {
            _waitForBuffer.Add(slot);
        }
    }

    private DiskCompletion End(int slot, DiskStatus status)
    {
        ref RawRequest r = ref _requests[slot];
        if (r.Ticket >= 0)
        {
            _disk.Ranges!.Leave(r.Ticket);
        }

        if (_transfers.Release(ref r) && _waitForBuffer.Count > 0)
        {
            int next = _waitForBuffer[0];
            _waitForBuffer.RemoveAt(0);
            Park(next, _transfers.Issue(next, ref _requests[next]));
        }

        _free[_freeCount++] = slot;
        return new DiskCompletion(r.Tag, status);
    }

    private bool TryTakeWake(ulong tag)
    {
        if ((tag & WakeTag) == 0)
        {
            return false;
        }

        if (tag == GrantTag)
        {
            _grantArmed = false;
        }
        else
        {
            _armed[(int)(tag & ~WakeTag)] = false;
        }

        return true;
    }
}
