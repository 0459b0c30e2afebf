using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Perf;

/// <summary>
/// Runs requests on a disk without a machine before it: what storage alone costs. One loop, so many requests in flight. It looks for
/// completions as the thread of a virtio disk does before it sleeps.
/// </summary>
internal sealed class DiskEngine : IBlockOwner, IDisposable
{
    private const int PollMicroseconds = 50; // VirtioBlkOptions.PollMicroseconds

    private readonly IoLoop _loop = new();
    private readonly IDiskBackend _disk;
    private readonly IBlockNode _node;
    private readonly NativeArray<byte> _memory;
    private readonly NativeArray<IoVector> _vectors;
    private readonly List<BlockRequest> _free = [];
    private BusyPoll _poll = new(PollMicroseconds);
    private DiskStatus _worst;

    /// <param name="disk">Taken over.</param>
    /// <param name="depth">Requests in flight.</param>
    /// <param name="bytes">Bytes of each.</param>
    /// <param name="oneBuffer">
    /// All requests have the same memory, as those of qemu-img bench have (it gives each the first of its vectors): large ones are then
    /// copied within the processor's caches, in both programs or in none.
    /// </param>
    internal DiskEngine(IDiskBackend disk, int depth, int bytes, bool oneBuffer = false)
    {
        _disk = disk;
        _node = disk.CreateNode(_loop, depth);
        _memory = new NativeArray<byte>(depth * bytes, 4096);
        _vectors = new NativeArray<IoVector>(depth);
        for (int i = 0; i < depth; i++)
        {
            _vectors.Span[i] = new IoVector(_memory.AddressOf(oneBuffer ? 0 : i * bytes), (nuint)bytes);
            BlockRequest request = new(this, i);
            _loop.Add(request);
            _free.Add(request);
        }
    }

    /// <summary>A raw file.</summary>
    internal static IDiskBackend Raw(string path) => RawFileBackend.Open(path);

    /// <summary>A chain of qcow2 images, the top first.</summary>
    internal static IDiskBackend Chain(params string[] images) => Qcow2Disk.Open([.. images.Select((path, i) =>
        new ImageLayer(new RawImageFile(RawFileBackend.Open(path, new() { IsImage = true, ReadOnly = i > 0 })), ImageFormat.Qcow2))]);

    /// <summary>
    /// Does <paramref name="count"/> requests. With a <paramref name="step"/> each so many bytes behind the one before, round the disk, as
    /// qemu-img bench does; with 0 anywhere.
    /// </summary>
    internal DiskRate Run(BlockKind kind, int count, ulong step)
    {
        ulong bytes = _vectors.Span[0].Length, size = _node.Geometry.CapacityBytes, offset = 0;
        Random random = new(1);
        TimeSpan processor = Environment.CpuUsage.TotalTime;
        long begin = Stopwatch.GetTimestamp(), allocated = GC.GetAllocatedBytesForCurrentThread();
        for (int submitted = 0; submitted < count || _node.InFlight > 0;)
        {
            while (submitted < count && _free.Count > 0)
            {
                BlockRequest request = _free[^1];
                _free.RemoveAt(_free.Count - 1);
                request.Prepare(kind, offset, (uint)bytes);
                request.SetData(_vectors.Span.Slice(request.Token, 1));
                _node.Submit(request);
                submitted++;
                offset += step;
                offset = step == 0 ? (ulong)random.NextInt64((long)(size / bytes)) * bytes
                    : offset > size - bytes ? offset % (size - bytes) / bytes * bytes : offset;
            }

            _loop.Submit();
            Await();
        }

        double seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        return _worst == DiskStatus.Ok
            ? new DiskRate(
                count / seconds,
                (Environment.CpuUsage.TotalTime - processor).TotalMicroseconds / count,
                allocated / (double)count)
            : throw new InvalidOperationException($"the engine's requests ended with {_worst}");
    }

    public void Completed(BlockRequest request, DiskStatus status)
    {
        _worst = status == DiskStatus.Ok ? _worst : status;
        _free.Add(request);
    }

    private void Await()
    {
        if (_loop.Poll() > 0)
        {
            _poll.Worked();
        }
        else if (_poll.LookAgain(Stopwatch.GetTimestamp()))
        {
            Thread.SpinWait(4);
        }
        else
        {
            long before = Stopwatch.GetTimestamp();
            if (_loop.Wait())
            {
                _poll.Slept(Stopwatch.GetTimestamp() - before);
            }
        }
    }

    public void Dispose()
    {
        _node.Dispose();
        _loop.Dispose();
        _disk.Dispose();
        _memory.Dispose();
        _vectors.Dispose();
    }
}

/// <summary>What a run came to.</summary>
/// <param name="PerSecond">Requests a second.</param>
/// <param name="Processor">Processor time of a request, all threads, in microseconds.</param>
/// <param name="Allocated">Bytes that the loop's thread allocated for a request.</param>
internal readonly record struct DiskRate(double PerSecond, double Processor, double Allocated);
