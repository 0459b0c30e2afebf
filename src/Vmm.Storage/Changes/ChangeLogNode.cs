using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Changes;

/// <summary>
/// Marks in the change log what is written, before the node below hears of it. A write to an area that is not hot waits for a sync of the
/// log, with all others that need it; the rest goes on meanwhile. What it passes on it forgets: it hears of no end.
/// </summary>
internal sealed class ChangeLogNode : IBlockNode
{
    private readonly ChangeLog _log;
    private readonly IoLoop _loop;
    private readonly IBlockNode _target;
    private readonly EventFd _bell = new(); // rung when another node's sync is over
    private readonly Doorbell _doorbell;
    private readonly Sync _sync;
    private RequestList _waiting;
    private int _covered; // of those that wait, the first so many were there when our sync began
    private TaskCompletionSource? _closed; // who waits for the end of what waits here
    private bool _syncing, _released;

    /// <param name="log">The log, which stays the caller's.</param>
    /// <param name="loop">The loop of the requests.</param>
    /// <param name="target">Where they go; owned.</param>
    internal ChangeLogNode(ChangeLog log, IoLoop loop, IBlockNode target)
    {
        (_log, _loop, _target) = (log, loop, target);
        _sync = new Sync(this);
        loop.Add(_sync);
        _doorbell = loop.Watch(_bell, GoOn);
    }

    public BlockGeometry Geometry => _target.Geometry;

    public int InFlight => _target.InFlight + _waiting.Count; // while it syncs, some wait

    public bool WritesZeroesAsData(bool mayUnmap) => _target.WritesZeroesAsData(mayUnmap);

    public void Submit(BlockRequest request)
    {
        if (request.Kind is BlockKind.Write or BlockKind.WriteZeroes or BlockKind.Discard && request.IsInside(Geometry)
            && !_log.TryMark(request.Offset, request.Length))
        {
            _waiting.Add(request);
            Begin();
        }
        else
        {
            _target.Submit(request);
        }
    }

    /// <summary>Closes the node below behind what waits.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        if (_closed is { } closed)
        {
            return new ValueTask(closed.Task);
        }

        if (_waiting.Count == 0)
        {
            Release();
            return _target.FlushAndCloseAsync();
        }

        _closed = new TaskCompletionSource();
        return new ValueTask(_closed.Task);
    }

    public void Dispose()
    {
        if (!_released)
        {
            this.WaitForAll(_loop);
            Release();
        }

        _target.Dispose();
    }

    private void Release()
    {
        if (!_released)
        {
            _released = true;
            _log.Forget(_bell);
            _loop.Unwatch(_doorbell);
            _loop.Remove(_sync);
            _bell.Dispose();
        }
    }

    private void Begin()
    {
        if (_syncing)
        {
            return; // the next one is for what came meanwhile
        }

        switch (_log.TryBeginSync(_waiting.First, _bell))
        {
            case ChangeLog.SyncStep.Sync:
                _syncing = true;
                _covered = _waiting.Count;
                _loop.DataSync(_sync, _log.File);
                break;
            case ChangeLog.SyncStep.Wait:
                _doorbell.Arm();
                break;
            default:
                _loop.CompleteLater(_sync, 0); // not inside the submission of a request
                _syncing = true;
                _covered = 0;
                break;
        }
    }

    // Another node's sync is over.
    private void GoOn()
    {
        if (!_syncing && _waiting.Count > 0)
        {
            Pass(covered: 0);
        }
    }

    private void SyncEnded(int result)
    {
        _syncing = false;
        int covered = _covered;
        _covered = 0;
        if (covered > 0)
        {
            _log.EndSync(result);
        }

        Pass(covered);
    }

    private void Pass(int covered)
    {
        for (int left = _waiting.Count; left > 0; left--, covered--)
        {
            BlockRequest request = _waiting.Take()!;
            bool isMarked = covered > 0 && ChangeLog.IsLong(request.Offset, request.Length); // and stable
            if (isMarked || _log.TryMark(request.Offset, request.Length))
            {
                _target.Submit(request);
            }
            else
            {
                _waiting.Add(request);
            }
        }

        if (_waiting.Count > 0)
        {
            Begin();
        }
        else if (_closed is { } closed && !_released)
        {
            Release();
            _ = _target.FlushAndCloseAsync().AsTask().ContinueWith(
                ended => EndClosing(ended, closed),
                CancellationToken.None,
                TaskContinuationOptions.ExecuteSynchronously, // on the loop's thread
                TaskScheduler.Default);
        }
    }

    private static void EndClosing(Task ended, TaskCompletionSource closed)
    {
        if (ended.Exception is { } failed)
        {
            closed.SetException(failed.InnerExceptions);
        }
        else
        {
            closed.SetResult();
        }
    }

    private sealed class Sync(ChangeLogNode node) : IoOperation
    {
        protected override void OnCompleted(int result) => node.SyncEnded(result);
    }
}
