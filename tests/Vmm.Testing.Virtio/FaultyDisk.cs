using Vmm.Interop;
using Vmm.Storage;

namespace Vmm.Testing.Virtio;

/// <summary>A disk that fails, or holds requests back for some rounds, as its owner says.</summary>
public sealed class FaultyDisk(IDiskBackend inner) : IDiskBackend
{
    public volatile DiskStatus Answer;
    public volatile int DelayRounds;
    public volatile int Disposed;
    public volatile int Flushes;

    /// <summary>Requests that were not wholly on the disk: the device has to refuse them before.</summary>
    public volatile int Outside;

    /// <summary>As long as it is set no request ends, as on a file system that hangs.</summary>
    public volatile bool Hold;

    /// <summary>How often an I/O thread went to sleep.</summary>
    public int Waits;

    public ulong CapacityBytes => inner.CapacityBytes;

    public int LogicalBlockSize => inner.LogicalBlockSize;

    public int PhysicalBlockSize => inner.PhysicalBlockSize;

    public bool ReadOnly => inner.ReadOnly;

    public DiskAbilities Abilities => inner.Abilities;

    public IDiskQueue CreateQueue(int depth) => new Queue(this, inner.CreateQueue(depth));

    public void Dispose() => Disposed++;

    private sealed class Queue(FaultyDisk disk, IDiskQueue inner) : IDiskQueue
    {
        private readonly List<EventFd> _watched = [];
        private IoUring? _ring;
        private int _round;

        public int Depth => inner.Depth;

        public int InFlight => inner.InFlight;

        public void Read(ulong tag, ulong offset, nint iovecs, int count, uint length)
        {
            Look(offset, length);
            inner.Read(tag, offset, iovecs, count, length);
        }

        public void Write(ulong tag, ulong offset, nint iovecs, int count, uint length)
        {
            Look(offset, length);
            inner.Write(tag, offset, iovecs, count, length);
        }

        public void Flush(ulong tag)
        {
            disk.Flushes++;
            inner.Flush(tag);
        }

        public void Discard(ulong tag, ulong offset, ulong length)
        {
            Look(offset, length);
            inner.Discard(tag, offset, length);
        }

        public void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap)
        {
            Look(offset, length);
            inner.WriteZeroes(tag, offset, length, mayUnmap);
        }

        public bool WritesZeroesAsData(bool mayUnmap) => inner.WritesZeroesAsData(mayUnmap);

        public void Submit() => inner.Submit();

        public int Reap(Span<DiskCompletion> completions)
        {
            if (disk.Hold)
            {
                return 0;
            }

            if (inner.InFlight > 0 && ++_round <= disk.DelayRounds)
            {
                return 0;
            }

            _round = 0;
            int count = inner.Reap(completions);
            for (int i = 0; i < count && disk.Answer != DiskStatus.Ok; i++)
            {
                completions[i] = completions[i] with { Status = disk.Answer };
            }

            return count;
        }

        public void Watch(EventFd doorbell)
        {
            _watched.Add(doorbell);
            inner.Watch(doorbell);
        }

        public void Wait()
        {
            Interlocked.Increment(ref disk.Waits);
            if (disk.Hold)
            {
                WaitForDoorbell();
            }
            else
            {
                inner.Wait();
            }
        }

        public void WaitForCompletion()
        {
            Interlocked.Increment(ref disk.Waits);
            if (disk.Hold)
            {
                Thread.Sleep(5); // as long as nothing comes back; "may also return for no reason"
            }
            else
            {
                inner.WaitForCompletion();
            }
        }

        // A queue whose requests do not end still wakes up for doorbells.
        private void WaitForDoorbell()
        {
            _ring ??= new IoUring();
            for (int i = 0; i < _watched.Count; i++)
            {
                _ring.PollReadable(_watched[i].Handle, (ulong)i);
            }

            _ring.SubmitAndWait();
            _ring.Dispose();
            _ring = null;
        }

        public void Dispose() => inner.Dispose();

        private void Look(ulong offset, ulong length) => disk.Outside += offset <= disk.CapacityBytes && length <= disk.CapacityBytes - offset ? 0 : 1;
    }
}
