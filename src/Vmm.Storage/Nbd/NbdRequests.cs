using Vmm.Interop;

namespace Vmm.Storage.Nbd;

/// <summary>
/// The requests of an NBD disk, of all its nodes: those that came, those that wait for a command, and those that a server has. Belongs to
/// the disk's thread, but for what says so.
/// <para>
/// What is repeated. A request that has no answer when the connection is lost is done again from its beginning on the next one, whatever
/// was done of it: reads, writes, zeros and discards of a range have the same end however often they are done, and as long as a request
/// has no answer, it may take effect at any moment, also after what was answered meanwhile. Nothing that was answered is repeated.
/// </para>
/// <para>
/// What may be lost. A server that crashed has forgotten what it had answered and not made stable. When there was any, the flushes that
/// waited for it fail, or the next one does (<see cref="NbdOptions.KeepsUnflushed"/>); with that the guest knows, and the ones after it
/// count for what was written after.
/// </para>
/// </summary>
internal sealed class NbdRequests : IDisposable
{
    private const int MostLosses = 8;

    private readonly NbdCommands _commands = new();
    private readonly Lock _gate = new();
    private RequestList _incoming; // under the gate
    private RequestList _waiting;
    private long _written, _flushed; // requests that changed something, and those of them that a flush covers
    private bool _lostWrites;
    private volatile bool _failedByLoss;

    /// <summary>Requests that changed something and are over. Any thread.</summary>
    internal long Written => Volatile.Read(ref _written);

    /// <summary>A flush would make something stable. Any thread.</summary>
    internal bool HasUnflushed => Volatile.Read(ref _written) != Volatile.Read(ref _flushed);

    /// <summary>The last request that failed did since the server was away. Any thread.</summary>
    internal bool FailedByLoss => _failedByLoss;

    /// <summary>Requests that the server has.</summary>
    internal int InFlight => _commands.InFlight;

    /// <summary>Nothing is asked of the server.</summary>
    internal bool IsIdle => InFlight == 0 && _waiting.Count == 0;

    /// <summary>The server has answered something since this was set to false.</summary>
    internal bool IsAnswered { get; set; } = true;

    /// <summary>The server says that it ends; until this is set to false.</summary>
    internal bool ServerEnds { get; set; }

    /// <summary>Takes a request of a node; true when its thread has to be told. Any thread.</summary>
    internal bool Add(BlockRequest request)
    {
        request.LostNothing = false;
        lock (_gate)
        {
            _incoming.Add(request);
            return _incoming.Count == 1;
        }
    }

    /// <summary>What came waits now.</summary>
    internal void TakeIncoming()
    {
        lock (_gate)
        {
            while (_incoming.Take() is { } request)
            {
                _waiting.Add(request);
            }
        }
    }

    /// <summary>Issues what waits, as far as there is room; false when the connection is over.</summary>
    internal bool Issue(NbdConnection connection, NbdShape shape)
    {
        while (_waiting.First is { } request)
        {
            if (_lostWrites && request.Kind == BlockKind.Flush)
            {
                FailWaiting(flushesOnly: true);
                continue;
            }

            NbdCommands.Start start = _commands.TryIssue(connection, request, shape);
            if (start == NbdCommands.Start.NoRoom || (start == NbdCommands.Start.Refused && connection.State == NbdState.Over))
            {
                break;
            }

            _ = _waiting.Take();
            if (start == NbdCommands.Start.Refused)
            {
                Return(request, DiskStatus.IoError);
            }
        }

        return connection.State != NbdState.Over;
    }

    /// <summary>Takes commands that are over.</summary>
    internal void TakeEnds(NbdConnection connection)
    {
        while (connection.TryTakeEnd(out int slot, out int error))
        {
            if (error is Errno.ENOTCONN or Errno.ESHUTDOWN)
            {
                ServerEnds |= error == Errno.ESHUTDOWN;
                continue; // no answer: its request keeps the slot, until the connection is taken for lost
            }

            IsAnswered = true;
            BlockRequest request = _commands.End(slot, error, out bool hasMore);
            if (hasMore)
            {
                _waiting.AddFirst(request); // its next command
            }
            else
            {
                End(request, error);
            }
        }
    }

    /// <summary>The connection is gone: what it had begins again, in its order, before what waits.</summary>
    internal void TakeBack(NbdShape shape)
    {
        RequestList all = _commands.TakeAll(shape), waiting = _waiting, kept = default;
        while (all.Take() is { } request)
        {
            if (++request.Progress.Losses > MostLosses)
            {
                Return(request, DiskStatus.IoError); // it may be what ends the connection
            }
            else
            {
                kept.Add(request);
            }
        }

        while (waiting.Take() is { } request)
        {
            NbdCommands.Restart(request, shape);
            kept.Add(request);
        }

        _waiting = kept;
    }

    /// <summary>What was answered and not flushed may be lost.</summary>
    internal void LoseWrites()
    {
        if (HasUnflushed)
        {
            _lostWrites = true;
            FailWaiting(flushesOnly: true);
        }
    }

    /// <summary>What waits fails: everything, or the flushes that cannot be true any more.</summary>
    internal void FailWaiting(bool flushesOnly)
    {
        RequestList waiting = _waiting;
        _waiting = default;
        while (waiting.Take() is { } request)
        {
            if (flushesOnly && request.Kind != BlockKind.Flush)
            {
                _waiting.Add(request);
                continue;
            }

            if (request.Kind == BlockKind.Flush && (flushesOnly || _lostWrites))
            {
                _lostWrites = false; // told
                Volatile.Write(ref _flushed, _written);
            }
            else if (request.Kind == BlockKind.Flush)
            {
                request.LostNothing = true; // the server is away, and has what it had
            }

            _failedByLoss = true;
            Return(request, DiskStatus.IoError);
        }
    }

    /// <summary>A command waits longer than this for its answer.</summary>
    internal bool IsAnyOlderThan(TimeSpan time) => _commands.IsAnyOlderThan(time);

    public void Dispose() => _commands.Dispose();

    private void End(BlockRequest request, int error)
    {
        if (request.Kind == BlockKind.Flush)
        {
            Volatile.Write(ref _flushed, error == 0 ? Math.Max(_flushed, request.Progress.Covers) : _flushed);
        }
        else if (request.Kind != BlockKind.Read && (error != 0 || (request.Flags & BlockFlags.Fua) == 0))
        {
            Volatile.Write(ref _written, _written + 1);
        }

        _failedByLoss &= error == 0;
        Return(request, error switch
        {
            0 => DiskStatus.Ok,
            Errno.ENOSPC or Errno.EDQUOT => DiskStatus.NoSpace,
            Errno.EOPNOTSUPP => DiskStatus.NotSupported,
            _ => DiskStatus.IoError,
        });
    }

    private static void Return(BlockRequest request, DiskStatus status)
    {
        request.Progress.Status = status;
        ((NbdNode)request.Leaf!).Return(request);
    }
}
