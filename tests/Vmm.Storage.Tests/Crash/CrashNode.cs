using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// A <see cref="CrashFile"/> as one loop reaches it. With delays a request has its effect some rounds of the loop after it was submitted,
/// and ends some rounds after that; the rounds are random, by a seed.
/// </summary>
internal sealed class CrashNode : IBlockNode, IBlockLeaf
{
    private const int MostRounds = 6;

    private readonly CrashFile _file;
    private readonly IoLoop _loop;
    private readonly int _depth;
    private readonly Random _random;
    private readonly Tick _tick;
    private readonly List<Work> _delayed = [];
    private readonly Dictionary<BlockRequest, Work> _works = [];
    private TaskCompletionSource? _closed;
    private long _written, _flushed; // changes that ended, and those of them that a flush covers
    private bool _ticking, _disposed;

    internal CrashNode(CrashFile file, IoLoop loop, int depth, int seed)
    {
        _file = file;
        _loop = loop;
        _depth = depth;
        _random = new Random(seed);
        _tick = new Tick(Advance);
        loop.Add(_tick);
    }

    public BlockGeometry Geometry => _file.Geometry;

    public int InFlight => _works.Count;

    public bool WritesZeroesAsData(bool mayUnmap) => false;

    public void Submit(BlockRequest request)
    {
        if (InFlight == _depth || _closed is not null || _disposed)
        {
            throw new InvalidOperationException(InFlight == _depth ? "More requests than the node's depth." : "The node is being closed.");
        }

        request.Run(this);
        Work work = new(request);
        _works.Add(request, work);
        if (request.Kind == BlockKind.Flush)
        {
            (work.Covered, work.Covers) = (_file.BeginFlush(), _written);
        }

        if (!_file.Delays)
        {
            Execute(work);
            _loop.CompleteLater(request, (int)work.Status);
            return;
        }

        (work.RunIn, work.EndIn) = (_random.Next(MostRounds), _random.Next(MostRounds));
        _delayed.Add(work);
        Continue();
    }

    public void OnStep(BlockRequest request, int result)
    {
        _works.Remove(request, out Work? work);
        _file.Acknowledge(work!.Entry);
        if (request.Kind == BlockKind.Flush)
        {
            _flushed = work.Status == DiskStatus.Ok ? Math.Max(_flushed, work.Covers) : _flushed;
        }
        else
        {
            _written += request.Kind == BlockKind.Read ? 0 : 1;
        }

        request.Complete((DiskStatus)result);
        CloseIfIdle();
    }

    public ValueTask FlushAndCloseAsync()
    {
        if (_closed is null && !_disposed)
        {
            _closed = new TaskCompletionSource();
            CloseIfIdle();
        }

        return _closed is null ? default : new ValueTask(_closed.Task);
    }

    public void Dispose()
    {
        if (!_disposed)
        {
            this.WaitForAll(_loop);
            Leave();
        }
    }

    private void Leave()
    {
        _disposed = true;
        if (!_ticking)
        {
            _loop.Remove(_tick);
        }
    }

    private void CloseIfIdle()
    {
        if (_closed is null || InFlight > 0 || _disposed)
        {
            return;
        }

        Leave();
        DiskStatus status = _written != _flushed ? _file.TryFlush(_file.BeginFlush()) : DiskStatus.Ok;
        if (status == DiskStatus.Ok)
        {
            _closed.SetResult();
            return;
        }

        string message = $"disk {_file.Path}: the flush at its end failed";
        _closed.SetException(new BlockException(BlockErrorKind.Io, message) { Path = _file.Path, Status = status });
    }

    private void Continue()
    {
        if (!_ticking && _delayed.Count > 0)
        {
            _ticking = true;
            _loop.CompleteLater(_tick, 0);
        }
    }

    // One round: what is due has its effect or ends, in an order of its own.
    private void Advance()
    {
        _ticking = false;
        foreach (Work work in _delayed.OrderBy(_ => _random.Next()).ToArray())
        {
            if (work.RunIn-- == 0)
            {
                Execute(work);
            }

            if (work.RunIn < 0 && work.EndIn-- == 0)
            {
                _delayed.Remove(work);
                _loop.CompleteLater(work.Request, (int)work.Status);
            }
        }

        if (_disposed)
        {
            _loop.Remove(_tick);
        }

        Continue();
    }

    private void Execute(Work work)
    {
        BlockRequest request = work.Request;
        work.Status = request.Kind switch
        {
            BlockKind.Flush => _file.TryFlush(work.Covered!),
            BlockKind.None => DiskStatus.NotSupported,
            _ when !request.IsInside(Geometry) => DiskStatus.IoError,
            BlockKind.Read => Read(request),
            BlockKind.Write => Write(work),
            BlockKind.Discard => Discard(work),
            _ => _file.TryZero(FileSteps.Write, request.Offset, request.Length, grows: true, out work.Entry),
        };
        if ((request.Flags & BlockFlags.Fua) != 0 && work is { Status: DiskStatus.Ok, Entry: { } entry })
        {
            work.Status = _file.TryFlush([entry]);
        }
    }

    // A hint: what is not done is not wrong.
    private DiskStatus Discard(Work work)
    {
        BlockRequest request = work.Request;
        return !_file.CanPunch || (_file.Delays && _random.Next(4) == 0)
            ? DiskStatus.Ok
            : _file.TryZero(FileSteps.Punch, request.Offset, request.Length, grows: false, out work.Entry);
    }

    private DiskStatus Read(BlockRequest request)
    {
        ulong at = request.Offset;
        foreach (ref readonly IoVector vector in request.Vectors)
        {
            DiskStatus status = _file.TryRead(HostSpan.Bytes(vector.Base, (int)vector.Length), at);
            if (status != DiskStatus.Ok)
            {
                return status;
            }

            at += vector.Length;
        }

        return at == request.Offset + request.Length ? DiskStatus.Ok : DiskStatus.IoError;
    }

    private DiskStatus Write(Work work)
    {
        BlockRequest request = work.Request;
        byte[] bytes = new byte[request.Length];
        int at = 0;
        foreach (ref readonly IoVector vector in request.Vectors)
        {
            HostSpan.Bytes(vector.Base, (int)vector.Length).CopyTo(bytes.AsSpan(at));
            at += (int)vector.Length;
        }

        return at == bytes.Length ? _file.TryWrite(bytes, request.Offset, out work.Entry) : DiskStatus.IoError;
    }

    private sealed class Work(BlockRequest request)
    {
        public BlockRequest Request { get; } = request;

        public JournalEntry[]? Covered;
        public JournalEntry? Entry;
        public DiskStatus Status;
        public long Covers;
        public int RunIn, EndIn;
    }
}
