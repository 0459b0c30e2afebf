using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>Executes at once and hands the completions out on <see cref="Reap"/>; sleeps on the doorbells through an io_uring of its own.</summary>
internal sealed class MemoryDiskQueue(byte[] content, int depth) : IDiskQueue
{
    private readonly DiskCompletion[] _done = new DiskCompletion[depth];
    private readonly IoCompletion[] _wakes = new IoCompletion[16];
    private readonly List<EventFd> _watched = [];
    private readonly List<bool> _armed = [];
    private IoUring? _ring;
    private int _count;

    public int Depth => depth;

    public int InFlight => _count;

    public void Read(ulong tag, ulong offset, nint iovecs, int count, uint length) => Transfer(tag, offset, iovecs, count, length, read: true);

    public void Write(ulong tag, ulong offset, nint iovecs, int count, uint length) => Transfer(tag, offset, iovecs, count, length, read: false);

    public void Flush(ulong tag) => Finish(tag, DiskStatus.Ok);

    public void Discard(ulong tag, ulong offset, ulong length) => Zero(tag, offset, length);

    public void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap) => Zero(tag, offset, length);

    public bool WritesZeroesAsData(bool mayUnmap) => true;

    public void Submit() { }

    public int Reap(Span<DiskCompletion> completions)
    {
        int taken = Math.Min(completions.Length, _count);
        _done.AsSpan(0, taken).CopyTo(completions);
        _done.AsSpan(taken, _count - taken).CopyTo(_done);
        _count -= taken;
        return taken;
    }

    public void Watch(EventFd doorbell)
    {
        _watched.Add(doorbell);
        _armed.Add(false);
    }

    public void Wait()
    {
        if (_count > 0)
        {
            return;
        }

        _ring ??= IoUringPool.Rent();
        for (int i = 0; i < _watched.Count; i++)
        {
            if (!_armed[i])
            {
                _ring.PollReadable(_watched[i].Handle, (uint)i);
                _armed[i] = true;
            }
        }

        _ring.SubmitAndWait();
        int woken = _ring.Reap(_wakes);
        for (int i = 0; i < woken; i++)
        {
            _armed[(int)_wakes[i].Tag] = false;
        }
    }

    // Requests end as they are queued.
    public void WaitForCompletion() { }

    public void Dispose()
    {
        if (_ring is { } ring)
        {
            _ring = null;
            IoUringPool.Return(ring);
        }
    }

    private bool Inside(ulong offset, ulong length) => offset <= (ulong)content.Length && length <= (ulong)content.Length - offset;

    private void Transfer(ulong tag, ulong offset, nint iovecs, int count, uint length, bool read)
    {
        if (!Inside(offset, length))
        {
            Finish(tag, DiskStatus.IoError);
            return;
        }

        Span<byte> disk = content.AsSpan((int)offset, (int)length);
        foreach (ref readonly IoVector v in HostSpan.Vectors(iovecs, count))
        {
            Span<byte> guest = HostSpan.Bytes(v.Base, Math.Min((int)v.Length, disk.Length));
            if (read)
            {
                disk[..guest.Length].CopyTo(guest);
            }
            else
            {
                guest.CopyTo(disk);
            }

            disk = disk[guest.Length..];
        }

        Finish(tag, disk.IsEmpty ? DiskStatus.Ok : DiskStatus.IoError);
    }

    private void Zero(ulong tag, ulong offset, ulong length)
    {
        bool inside = Inside(offset, length);
        if (inside)
        {
            content.AsSpan((int)offset, (int)length).Clear();
        }

        Finish(tag, inside ? DiskStatus.Ok : DiskStatus.IoError);
    }

    private void Finish(ulong tag, DiskStatus status) => _done[_count++] = new DiskCompletion(tag, status);
}
