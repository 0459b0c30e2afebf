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

/// <summary>Why a router holds requests back.</summary>
[Flags]
public enum HoldReasons
{
    /// <summary>It forwards them.</summary>
    None = 0,

    /// <summary><see cref="RequestRouter.Hold"/> was called.</summary>
    Owner = 1,

    /// <summary>The gate did not let the first one pass.</summary>
    Gate = 2,
}

/// <summary>What a router has done. Accepted = completed + in flight + held + withdrawn at every moment.</summary>
/// <param name="Accepted">Requests submitted to it.</param>
/// <param name="Completed">Requests that ended, whatever their status.</param>
/// <param name="InFlight">Requests that nodes behind it work on.</param>
/// <param name="Held">Requests held back.</param>
/// <param name="Withdrawn">Held requests that were taken back.</param>
public readonly record struct RouterLedger(long Accepted, long Completed, int InFlight, int Held, long Withdrawn);

/// <summary>
/// Stands before a resource: forwards requests, or holds them in their order until it may forward again. One for each queue, on the queue's
/// loop. A held request has no pages and has charged nothing. Without a hold or a gate it costs a predictable branch a request.
/// </summary>
public sealed class RequestRouter : IBlockNode, IBlockOwner
{
    private readonly IBlockNode _target;
    private readonly IoLoop _loop;
    private readonly IoTimer _retry;
    private IRequestGate? _gate;
    private RequestList _held;
    private long _accepted, _completed, _withdrawn;
    private bool _always = true; // nothing holds and there is no gate

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
    public int InFlight { get; private set; }

    /// <summary>Why requests are held back.</summary>
    public HoldReasons Reasons { get; private set; }

    /// <summary>True when a request submitted now would be held back.</summary>
    public bool IsHolding => Reasons != HoldReasons.None;

    /// <summary>
    /// True when nothing is in flight behind it and nothing will be until <see cref="Resume"/>. In flight may only become less while it
    /// holds.
    /// </summary>
    public bool IsDrained => (Reasons & HoldReasons.Owner) != 0 && InFlight == 0;

    /// <summary>The counters.</summary>
    public RouterLedger Ledger => new(_accepted, _completed, InFlight, _held.Count, _withdrawn);

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
        _accepted++;
        if (_always || (Reasons == HoldReasons.None && Passes(request)))
        {
            Forward(request);
            return;
        }

        request.Hold();
        _held.Add(request);
    }

    /// <summary>Holds back what is submitted from now on.</summary>
    public void Hold()
    {
        Reasons |= HoldReasons.Owner;
        _always = false;
    }

    /// <summary>Ends <see cref="Hold"/>: what is held goes on in its order.</summary>
    public void Resume()
    {
        Reasons &= ~HoldReasons.Owner;
        Release();
    }

    /// <summary>Takes back what is held, the oldest first: each request is as it was before it was submitted.</summary>
    public IReadOnlyList<BlockRequest> TakeHeld()
    {
        List<BlockRequest> taken = new(_held.Count);
        while (_held.Take() is { } request)
        {
            request.Withdraw();
            _withdrawn++;
            taken.Add(request);
        }

        return taken;
    }

    /// <inheritdoc/>
    public void Completed(BlockRequest request, DiskStatus status)
    {
        InFlight--;
        _completed++;
        request.Complete(status);
    }

    /// <summary>Waits for what is in flight. What is held stays its owner's matter.</summary>
    public void Dispose()
    {
        this.WaitForAll(_loop);

        _loop.RemoveTimer(_retry);
    }

    private void Forward(BlockRequest request)
    {
        InFlight++;
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

    private bool Passes(BlockRequest request)
    {
        if (_gate is not { } gate || gate.TryPass(request, out int wait))
        {
            Reasons &= ~HoldReasons.Gate;
            return true;
        }

        Reasons |= HoldReasons.Gate;
        _retry.Set(wait);
        return false;
    }

    // Forwards what is held, as far as it may go.
    private void Release()
    {
        if ((Reasons & HoldReasons.Owner) != 0)
        {
            return;
        }

        while (_held.First is { } request && Passes(request))
        {
            _held.Take();
            Forward(request);
        }

        if (_held.Count > 0)
        {
            return;
        }

        Reasons = HoldReasons.None;
        _retry.Clear();
        _always = _gate is null;
    }
}
