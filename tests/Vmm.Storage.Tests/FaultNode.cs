using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>
/// Stands before another node and makes of it what a bad day makes of storage: requests that fail, before or after they had their effect,
/// that overtake each other, or that do not end. On its loop's thread.
/// </summary>
internal sealed class FaultNode : IBlockNode, IBlockOwner
{
    private readonly IoLoop _loop;
    private readonly IBlockNode _target;
    private readonly List<(BlockRequest Request, DiskStatus Status)> _late = [];
    private readonly Random _random;
    private readonly Tick _tick;
    private TaskCompletionSource? _closed;
    private bool _ticking, _disposed;

    public FaultNode(IoLoop loop, IBlockNode target, int seed = 1)
    {
        (_loop, _target, _random) = (loop, target, new Random(seed));
        _tick = new Tick(EndOne);
        loop.Add(_tick);
    }

    /// <summary>What a request fails with instead of going on; Ok lets it pass.</summary>
    public Func<BlockRequest, DiskStatus>? Refuses { get; set; }

    /// <summary>What a request that succeeded ends with: it had its effect.</summary>
    public Func<BlockRequest, DiskStatus>? Spoils { get; set; }

    /// <summary>Requests end some rounds later, in another order.</summary>
    public bool Reorders { get; set; }

    /// <summary>No request ends, until <see cref="Release"/>.</summary>
    public bool Stalls { get; set; }

    public BlockGeometry Geometry => _target.Geometry;

    public int InFlight { get; private set; }

    public bool WritesZeroesAsData(bool mayUnmap) => _target.WritesZeroesAsData(mayUnmap);

    public void Submit(BlockRequest request)
    {
        InFlight++;
        request.PassThrough(this);
        if (Refuses?.Invoke(request) is { } status and not DiskStatus.Ok)
        {
            request.Answer(status);
        }
        else
        {
            _target.Submit(request);
        }
    }

    public void Completed(BlockRequest request, DiskStatus status)
    {
        status = status == DiskStatus.Ok && Spoils is { } spoils ? spoils(request) : status;
        if (!Reorders && !Stalls)
        {
            End(request, status);
            return;
        }

        _late.Add((request, status));
        Continue();
    }

    /// <summary>What stalled goes on.</summary>
    public void Release()
    {
        Stalls = false;
        Continue();
    }

    public ValueTask FlushAndCloseAsync()
    {
        if (InFlight == 0)
        {
            return default;
        }

        _closed ??= new TaskCompletionSource();
        return new ValueTask(_closed.Task);
    }

    public void Dispose()
    {
        if (!_disposed)
        {
            this.WaitForAll(_loop);
            _disposed = true;
            _loop.Remove(_tick);
        }
    }

    private void Continue()
    {
        if (!_ticking && !Stalls && _late.Count > 0)
        {
            _ticking = true;
            _loop.CompleteLater(_tick, 0);
        }
    }

    private void EndOne()
    {
        _ticking = false;
        if (Stalls)
        {
            return;
        }

        int which = _random.Next(_late.Count);
        (BlockRequest request, DiskStatus status) = _late[which];
        _late[which] = _late[^1];
        _late.RemoveAt(_late.Count - 1);
        Continue();
        End(request, status);
    }

    private void End(BlockRequest request, DiskStatus status)
    {
        InFlight--;
        request.Complete(status);
        if (_closed is { } closed && InFlight == 0)
        {
            closed.TrySetResult();
        }
    }
}

/// <summary>Calls back in the next round of its loop.</summary>
internal sealed class Tick(Action ticked) : IoOperation
{
    protected override void OnCompleted(int result) => ticked();
}
