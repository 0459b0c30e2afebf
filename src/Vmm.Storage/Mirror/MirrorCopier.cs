using System.Diagnostics;

namespace Vmm.Storage;

/// <summary>
/// The thread that copies a disk from its beginning to its end, chunk by chunk. Each chunk is its own while it copies it: writers wait, and
/// those that were there first are waited for. What the source knows to be zeros is not read, and what reads as zeros is not written but
/// zeroed, where the target is not known to have zeros there already: holes stay holes.
/// </summary>
/// <param name="mirror">What it copies for.</param>
/// <param name="source">Where it reads.</param>
/// <param name="target">Where it writes.</param>
/// <param name="bound">What the images of the source from this one on have is left out; null: all is copied.</param>
internal sealed class MirrorCopier(DiskMirror mirror, IDiskBackend source, IDiskBackend target, int? bound) : IDisposable
{
    private const ulong Chunk = DiskMirror.ChunkBytes, LongestHole = 256 * Chunk;
    private const int Grain = 64 * 1024; // zeros of this length become holes

    private readonly ManualResetEventSlim _stop = new();
    private Thread? _thread;
    private ulong _bytesPerSecond;
    private Action? _ready;
    private long _free; // when the next chunk may be written, in ticks of Stopwatch

    /// <summary>What is wrong when the target fails.</summary>
    internal static string TargetFailed(DiskStatus status, ulong offset) => status == DiskStatus.NoSpace
        ? "the file system of the target is full"
        : $"the host fails requests of the target at byte {offset}";

    /// <summary>What is wrong when the source cannot be read.</summary>
    internal static string SourceFailed(ulong offset) => $"the disk cannot be read at byte {offset}";

    /// <summary>Starts the thread.</summary>
    internal void Start(ulong bytesPerSecond, Action<Thread> run, Action? ready)
    {
        (_bytesPerSecond, _ready) = (bytesPerSecond, ready);
        Thread thread = new(Run, maxStackSize: 256 * 1024) { Name = "disk-copy", IsBackground = true };
        run(thread);
        _thread = thread;
    }

    /// <summary>Stops it; returns when nothing of it is in flight.</summary>
    internal void Stop()
    {
        _stop.Set();
        _thread?.Join();
    }

    public void Dispose()
    {
        Stop();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            using CopyLane lane = new(source, target, mirror.Ranges);
            _ready?.Invoke();
            CopyAll(lane);
        }
#pragma warning disable CA1031 // Whatever fails here ends the copy, not the disk.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            mirror.Fail(DiskStatus.IoError, $"the copy failed: {cause.Message}");
        }
    }

    private void CopyAll(CopyLane lane)
    {
        ulong size = mirror.Geometry.CapacityBytes;
        for (ulong at = 0; at < size;)
        {
            if (_stop.IsSet || !mirror.IsSound || MustWait())
            {
                return;
            }

            ulong end = NextEnd(lane, at);
            mirror.Reaches(end); // before the turn: a write that comes behind it goes to both
            lane.Enter(at, end);
            bool copied = CopyRange(lane, at, end);
            lane.Leave();
            if (!copied)
            {
                return;
            }

            at = end;
            mirror.Copied(at);
        }

        // Before the flush: what is flushed from here on is flushed on both, and what was before is covered by this one.
        mirror.ReachesAll();
        if (Succeeds(lane.Run(lane.Target, BlockKind.Flush, 0, 0), size))
        {
            mirror.AllCopied();
        }
    }

    // Keeps to the rate; true when it is stopped meanwhile.
    private bool MustWait()
    {
        TimeSpan left = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), _free);
        return left > TimeSpan.Zero && _stop.Wait(left);
    }

    // The end of the chunk, or of what needs no data: there is little to do for that, however long it is.
    private ulong NextEnd(CopyLane lane, ulong at)
    {
        ulong size = mirror.Geometry.CapacityBytes, end = at;
        ulong chunkEnd = Math.Min(size, at + Chunk), most = Math.Min(size, at + LongestHole);
        while (end < most && lane.Look(end, most) is var range && ToDo(range) != CopyStep.Copy)
        {
            end += range.Length;
        }

        end = end == size ? end : end - (end % Chunk);
        bool isQuick = end <= chunkEnd || !lane.Target.WritesZeroesAsData(mayUnmap: true) || lane.IsZeroAlready(at, end);
        return isQuick ? Math.Max(chunkEnd, end) : chunkEnd;
    }

    private CopyStep ToDo(in MappedRange range) => range.Layer >= bound ? CopyStep.Leave : range.IsZero ? CopyStep.Zero : CopyStep.Copy;

    // The range is ours, and what is in it may have changed until now.
    private bool CopyRange(CopyLane lane, ulong at, ulong end)
    {
        while (at < end)
        {
            MappedRange range = lane.Look(at, end);
            CopyStep step = ToDo(range);
            ulong next = at + range.Length;
            next = step == CopyStep.Copy ? DataEnd(lane, Math.Min(next, at + Chunk), Math.Min(end, at + Chunk)) : next;
            bool isDone = step switch
            {
                CopyStep.Leave => true,
                CopyStep.Zero => Zero(lane, at, next - at),
                _ => CopyChunk(lane, at, (int)(next - at)),
            };
            if (!isDone)
            {
                return false;
            }

            at = next;
        }

        return true;
    }

    // Data goes on here, at most to the end. Zeros too short for a hole are read with what is around them.
    private ulong DataEnd(CopyLane lane, ulong at, ulong end)
    {
        while (at < end)
        {
            MappedRange more = lane.Look(at, end);
            if (ToDo(more) != CopyStep.Copy && (bound is not null || more.Length >= Grain))
            {
                return at;
            }

            at += more.Length;
        }

        return end;
    }

    private bool CopyChunk(CopyLane lane, ulong at, int length)
    {
        if (lane.Run(lane.Source, BlockKind.Read, at, (uint)length) != DiskStatus.Ok)
        {
            mirror.Fail(DiskStatus.IoError, SourceFailed(at));
            return false;
        }

        for (int from = 0, to; from < length; from = to)
        {
            bool isZero = IsZero(lane, from, length);
            for (to = Math.Min(from + Grain, length); to < length && IsZero(lane, to, length) == isZero; to = Math.Min(to + Grain, length))
            {
            }

            if (!(isZero ? Zero(lane, at + (ulong)from, (ulong)(to - from)) : Write(lane, at, from, to)))
            {
                return false;
            }
        }

        return true;
    }

    private static bool IsZero(CopyLane lane, int from, int length) =>
        !lane.Data[from..Math.Min(from + Grain, length)].ContainsAnyExcept((byte)0);

    private bool Zero(CopyLane lane, ulong at, ulong length) => lane.IsZeroAlready(at, at + length)
        || Succeeds(lane.Run(lane.Target, BlockKind.WriteZeroes, at, (uint)length, BlockFlags.MayUnmap), at);

    private bool Write(CopyLane lane, ulong at, int from, int to)
    {
        if (_bytesPerSecond > 0)
        {
            long cost = (long)((double)(to - from) / _bytesPerSecond * Stopwatch.Frequency);
            _free = Math.Max(_free, Stopwatch.GetTimestamp()) + cost;
        }

        return Succeeds(lane.Run(lane.Target, BlockKind.Write, at + (ulong)from, (uint)(to - from), from: from), at + (ulong)from);
    }

    private bool Succeeds(DiskStatus status, ulong offset)
    {
        if (status != DiskStatus.Ok)
        {
            mirror.Fail(status, TargetFailed(status, offset));
        }

        return status == DiskStatus.Ok;
    }

    private enum CopyStep
    {
        /// <summary>Nothing is to do.</summary>
        Leave,

        /// <summary>The target gets zeros.</summary>
        Zero,

        /// <summary>The target gets what is read.</summary>
        Copy,
    }
}
