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

    public ulong CapacityBytes => inner.CapacityBytes;

    public int LogicalBlockSize => inner.LogicalBlockSize;

    public int PhysicalBlockSize => inner.PhysicalBlockSize;

    public bool ReadOnly => inner.ReadOnly;

    public DiskAbilities Abilities => inner.Abilities;

    public IDiskQueue CreateQueue(int depth) => new Queue(this, inner.CreateQueue(depth));

    public void Dispose() => Disposed++;

    private sealed class Queue(FaultyDisk disk, IDiskQueue inner) : IDiskQueue
    {
        private int _round;

        public int Depth => inner.Depth;

        public int InFlight => inner.InFlight;

        public void Read(ulong tag, ulong offset, nint iovecs, int count, uint length) => inner.Read(tag, offset, iovecs, count, length);

        public void Write(ulong tag, ulong offset, nint iovecs, int count, uint length) => inner.Write(tag, offset, iovecs, count, length);

        public void Flush(ulong tag)
        {
            disk.Flushes++;
            inner.Flush(tag);
        }

        public void Discard(ulong tag, ulong offset, ulong length) => inner.Discard(tag, offset, length);

        public void WriteZeroes(ulong tag, ulong offset, ulong length, bool mayUnmap) => inner.WriteZeroes(tag, offset, length, mayUnmap);

        public void Submit() => inner.Submit();

        public int Reap(Span<DiskCompletion> completions)
        {
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

        public void Watch(EventFd doorbell) => inner.Watch(doorbell);

        public void Wait() => inner.Wait();

        public void Dispose() => inner.Dispose();
    }
}
