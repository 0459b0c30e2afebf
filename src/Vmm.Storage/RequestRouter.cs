using Vmm.Io;

namespace Vmm.Storage;

/// <summary>Decides whether a request may go on now: a rate limit.</summary>
public interface IRequestGate
{
    /// <summary>
    /// Lets the request pass and charges it. False, and nothing charged, when it has to wait that many milliseconds (at least 1) before the
    /// next try.
    /// </summary>
    bool TryPass(BlockRequest request, out int wait);
}

/// <summary>Decides what becomes of a request that the host failed.</summary>
public interface IFaultPolicy
{
    /// <summary>
    /// True: the router keeps it, holds everything behind it, and issues it again when the hold ends. Its front end has not heard of it.
    /// </summary>
    bool Keeps(BlockRequest request, DiskStatus status);
}

/// <summary>Where a router is on the way to another owner of its resource (design.md, section 7).</summary>
public enum RouterState
{
    /// <summary>Requests go to the owner.</summary>
    Forwarding,

    /// <summary>Nothing goes on: what is submitted waits in its order.</summary>
    Holding,

    /// <summary>As <see cref="Holding"/>, and somebody waits for the end of what is in flight.</summary>
    Draining,

    /// <summary>Nothing is in flight: the owner may change, or be looked at while it stands still.</summary>
    Reassigning,
}

/// <summary>
/// What a router has done. Accepted = completed + in flight + held, and forwarded = completed + in flight, at every moment.
/// </summary>
/// <param name="Accepted">Requests submitted to it and not taken back.</param>
/// <param name="Forwarded">Those of them that went to an owner.</param>
/// <param name="Completed">Requests that ended, whatever their status.</param>
/// <param name="InFlight">Requests that the owner works on.</param>
/// <param name="Held">Requests held back.</param>
/// <param name="Refused">Requests that had no room among the held ones: their front end did not ask for it.</param>
public readonly record struct RouterLedger(long Accepted, long Forwarded, long Completed, int InFlight, int Held, long Refused);

/// <summary>
/// Stands before a resource: forwards requests to its owner, or holds them in their order until it may forward again, to the same owner or
/// another. One for each queue, on the queue's loop; only <see cref="Load"/> is for any thread. A held request has no pages and has charged
/// nothing. Without a hold or a gate it costs a predictable branch a request.
/// </summary>
public sealed class RequestRouter : IBlockNode, IBlockOwner
{
    private readonly IoLoop _loop;
    private readonly IoTimer _retry;
    private IBlockNode _target;
    private IRequestGate? _gate;
    private RequestList _held, _failed; // what failed is older than what is held
    private TaskCompletionSource? _drained, _closed; // who waits for the end of what is in flight
    private long _accepted, _completed, _refused, _sequence;
    private int _inFlight, _mostHeld;
    private bool _gated; // the gate did not let the first one pass
    private bool _always = true; // forwards, and there is no gate

    /// <summary>Puts a router before <paramref name="target"/>, which stays the caller's.</summary>
    /// <param name="loop">The loop of the requests.</param>
    /// <param name="target">Where they go.</param>
    public RequestRouter(IoLoop loop, IBlockNode target)
    {
        _loop = loop;
        _target = target;
        _retry = loop.AddTimer(Release);
    }

    /// <inheritdoc/>
    public BlockGeometry Geometry => _target.Geometry;

    /// <inheritdoc/>
    public int InFlight => _inFlight;

    /// <summary>Where it is on the way to another owner.</summary>
    public RouterState State { get; private set; }

    /// <summary>True when it holds and nothing is in flight.</summary>
    public bool IsDrained => State == RouterState.Reassigning;

    /// <summary>True when a request submitted now would be held back.</summary>
    public bool IsHolding => _gated || State != RouterState.Forwarding;

    /// <summary>
    /// The front end may submit one more: it is forwarded, or there is room among the held ones. While only the gate holds there is none: a
    /// request would wait behind another as well in the ring.
    /// </summary>
    public bool HasRoom => State == RouterState.Forwarding ? !_gated : _held.Count < _mostHeld;

    /// <summary>The counters.</summary>
    public RouterLedger Ledger => new(_accepted, _completed + _inFlight, _completed, _inFlight, _held.Count + _failed.Count, _refused);

    /// <summary>Requests in flight and held, for statistics: each number is exact, together they are not one moment. Any thread.</summary>
    public (int InFlight, int Held) Load => (Volatile.Read(ref _inFlight), _held.Count + _failed.Count);

    /// <summary>Requests that failed and are issued again when the hold ends.</summary>
    public int Kept => _failed.Count;

    /// <summary>Takes how long requests are at each stage; null: nobody wants to know.</summary>
    public StageLatencies? Latencies { get; set; }

    /// <summary>What becomes of requests that the host failed; null: their front end hears of it.</summary>
    public IFaultPolicy? Faults { get; set; }

    /// <summary>What each request has to pass; null is nothing. A changed gate is asked at once for what is held.</summary>
    public IRequestGate? Gate
    {
        get => _gate;
        set
        {
            _gate = value;
            Release();
        }
    }

    /// <inheritdoc/>
    public bool WritesZeroesAsData(bool mayUnmap) => _target.WritesZeroesAsData(mayUnmap);

    /// <inheritdoc/>
    public void Submit(BlockRequest request)
    {
        if (_always || (State == RouterState.Forwarding && !_gated && Passes(request)))
        {
            _accepted++;
            request.Order = ++_sequence;
            Forward(request);
        }
        else if (State != RouterState.Forwarding && _held.Count >= _mostHeld)
        {
            _refused++;
            request.Answer(DiskStatus.IoError);
        }
        else
        {
            _accepted++;
            request.Order = ++_sequence;
            request.Hold();
            request.Since = Now;
            _held.Add(request);
        }
    }

    /// <summary>Holds back what is submitted from now on.</summary>
    /// <param name="most">How many requests may wait; a router that holds already takes the new number.</param>
    public void Hold(int most = int.MaxValue)
    {
        _mostHeld = most;
        if (State == RouterState.Forwarding)
        {
            Move(RouterState.Holding);
            _always = false;
        }
    }

    /// <summary>
    /// Done when nothing is in flight any more and every front end has heard of it: the owner may change then. Canceled when the hold ends
    /// before. Continuations run on the loop's thread.
    /// </summary>
    /// <exception cref="InvalidOperationException">It does not hold.</exception>
    public Task DrainAsync()
    {
        if (State == RouterState.Reassigning)
        {
            return Task.CompletedTask;
        }

        if (State != RouterState.Draining)
        {
            Move(RouterState.Draining);
            _drained = new TaskCompletionSource();
        }

        Task drained = _drained!.Task;
        EndDraining();
        return drained;
    }

    /// <summary>
    /// Forwards from now on, first what is held, in its order. Only a drained router may take another owner: no request goes to it before
    /// every earlier one at the old is over. The present owner is always possible: what could not be reassigned goes on where it was.
    /// </summary>
    /// <exception cref="InvalidOperationException"><paramref name="to"/> is another owner, and the router is not drained.</exception>
    public void Forward(IBlockNode to)
    {
        if (!ReferenceEquals(to, _target) && State != RouterState.Reassigning)
        {
            throw new InvalidOperationException(
                $"A router that is {State} cannot change its owner: it has to be {RouterState.Reassigning}.");
        }

        _target = to;
        Resume();
    }

    /// <summary>Another owner, while it is drained and goes on holding.</summary>
    /// <exception cref="InvalidOperationException">It is not drained.</exception>
    public void Reassign(IBlockNode to) => _target = State == RouterState.Reassigning ? to : throw new InvalidOperationException(
        $"A router that is {State} cannot change its owner: it has to be {RouterState.Reassigning}.");

    /// <summary>Ends a hold without a change of the owner; a no-op without one.</summary>
    public void Resume()
    {
        if (State != RouterState.Forwarding)
        {
            Move(RouterState.Forwarding);
            TaskCompletionSource? drained = _drained;
            _drained = null;
            drained?.SetCanceled();
            Release();
        }
    }

    /// <summary>
    /// Takes back what is held, the oldest first: each request is as it was before it was submitted. What failed stays: younger requests
    /// may be over already.
    /// </summary>
    public IReadOnlyList<BlockRequest> TakeHeld()
    {
        List<BlockRequest> taken = new(_held.Count);
        while (_held.Take() is { } request)
        {
            request.Withdraw();
            _accepted--;
            taken.Add(request);
        }

        _gated = false;
        _retry.Clear();
        _always = State == RouterState.Forwarding && _gate is null;
        return taken;
    }

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status)
    {
        _inFlight--;
        if (request.Kind != BlockKind.None)
        {
            Latencies?.Storage.Add(Now - request.Since);
        }

        if (status is DiskStatus.NoSpace or DiskStatus.IoError && MayKeep(request, status))
        {
            Keep(request);
        }
        else
        {
            _completed++;
            request.Complete(status);
        }

        if (_inFlight == 0 && State == RouterState.Draining)
        {
            EndDraining();
            CloseIfDrained();
        }
    }

    // A failed flush is reported whatever the policy is: see BlockRequest.IsFinal. One that waits for space or for a server is not lost.
    private bool MayKeep(BlockRequest request, DiskStatus status) => !request.IsFinal
        && (request.Kind != BlockKind.Flush || request.LostNothing) && Faults?.Keeps(request, status) == true;

    private void Keep(BlockRequest request)
    {
        request.Keep();
        request.Since = Now;
        _failed.AddInOrder(request);
        if (State == RouterState.Forwarding)
        {
            Hold(most: 0);
        }
    }

    /// <summary>Takes nothing more and waits for what is in flight. What is held stays its owner's matter, as the target does.</summary>
    public ValueTask FlushAndCloseAsync()
    {
        Hold(0);
        _closed ??= new TaskCompletionSource();
        _ = DrainAsync();
        CloseIfDrained();
        return new ValueTask(_closed.Task);
    }

    /// <summary>Waits for what is in flight. What is held stays its owner's matter.</summary>
    public void Dispose()
    {
        this.WaitForAll(_loop);

        _loop.RemoveTimer(_retry);
    }

    // The transition table.
    private static bool IsMove(RouterState from, RouterState to) => (from, to) switch
    {
        (RouterState.Forwarding, RouterState.Holding) => true,
        (RouterState.Holding, RouterState.Draining) => true,
        (RouterState.Draining, RouterState.Reassigning) => true,
        (RouterState.Reassigning, RouterState.Forwarding) => true, // to the new owner, or back to the old
        (RouterState.Holding, RouterState.Forwarding) => true, // given up: the owner has not changed
        (RouterState.Draining, RouterState.Forwarding) => true, // likewise
        _ => false,
    };

    private void Move(RouterState to)
    {
        if (!IsMove(State, to))
        {
            throw new InvalidOperationException($"A router that is {State} cannot become {to}.");
        }

        State = to;
    }

    private void EndDraining()
    {
        if (_inFlight == 0)
        {
            Move(RouterState.Reassigning);
            TaskCompletionSource drained = _drained!;
            _drained = null;
            drained.SetResult();
        }
    }

    private void CloseIfDrained()
    {
        if (_closed is { } closed && IsDrained)
        {
            _loop.RemoveTimer(_retry);
            closed.TrySetResult();
        }
    }

    private void Forward(BlockRequest request)
    {
        _inFlight++;
        Time(request);
        request.PassThrough(this);
        if (request.Kind == BlockKind.None)
        {
            request.Answer(DiskStatus.Ok);
        }
        else
        {
            _target.Submit(request);
        }
    }

    private long Now => Latencies is null ? 0 : _loop.RoundTime;

    // It goes on now; one that was not held has not waited.
    private void Time(BlockRequest request)
    {
        if (Latencies is { } latencies)
        {
            long now = _loop.RoundTime;
            if (request.State == BlockState.Held)
            {
                latencies.Wait.Add(now - request.Since);
            }
            else
            {
                latencies.Wait.AddNothing();
            }

            request.Since = now;
        }
    }

    private bool Passes(BlockRequest request)
    {
        if (_gate is not { } gate || gate.TryPass(request, out int wait))
        {
            _gated = false;
            return true;
        }

        _gated = true;
        _retry.Set(wait);
        return false;
    }

    // Forwards what is held, as far as it may go.
    private void Release()
    {
        if (State != RouterState.Forwarding)
        {
            return;
        }

        // What failed has passed the gate already. As many as there are now: one that fails again at once waits for the next time.
        for (int left = _failed.Count; left > 0 && State == RouterState.Forwarding; left--)
        {
            Forward(_failed.Take()!);
        }

        while (State == RouterState.Forwarding && _held.First is { } request && Passes(request))
        {
            _held.Take();
            Forward(request);
        }

        if (_held.Count > 0 || State != RouterState.Forwarding)
        {
            return;
        }

        _gated = false;
        _retry.Clear();
        _always = _gate is null;
    }
}
