using System.Collections.Immutable;

namespace Vmm.Storage.Tests.RouterModel;

/// <summary>What can happen to a router of the model.</summary>
internal enum RouterStep
{
    Submit, EndOldest, EndNewest, FailOldest, FailNewest, HoldNone, HoldOne, HoldTwo, Drain, Resume, ForwardToOther, ReassignToOther,
    TakeHeld, CloseGate, OpenGate,
}

/// <summary>
/// A request router as design.md section 7 and its documentation describe it, written without a look at how the code does it: values only.
/// Requests have numbers in the order in which they were accepted.
/// </summary>
internal sealed record RouterModelState
{
    internal RouterState Phase { get; init; } = RouterState.Forwarding;

    /// <summary>Most that may be held, while it holds.</summary>
    internal int Most { get; init; }

    /// <summary>Which of the two owners it has.</summary>
    internal int Owner { get; init; }

    internal bool GateIsClosed { get; init; }

    /// <summary>Accepted and not forwarded yet, the oldest first.</summary>
    internal ImmutableArray<int> Held { get; init; } = [];

    /// <summary>Failed and to be issued again, the oldest first.</summary>
    internal ImmutableArray<int> Failed { get; init; } = [];

    /// <summary>At the owner, as they arrived.</summary>
    internal ImmutableArray<int> InFlight { get; init; } = [];

    /// <summary>Somebody waits for the end of what is in flight.</summary>
    internal bool DrainIsPending => Phase == RouterState.Draining;

    internal bool HasRoom => Phase == RouterState.Forwarding ? Held.IsEmpty : Held.Length < Most;

    internal int Live => Held.Length + Failed.Length + InFlight.Length;

    /// <summary>The same for the future: numbers do not count, only their order.</summary>
    internal string Key
    {
        get
        {
            int[] live = [.. Held.Concat(Failed).Concat(InFlight).Order()];
            string Ranks(ImmutableArray<int> some) => string.Concat(some.Select(id => Array.IndexOf(live, id)));
            int most = Phase == RouterState.Forwarding ? 0 : Most; // a hold gives a new one
            return $"{Phase} {most} {Owner} {GateIsClosed} {Ranks(Held)}/{Ranks(Failed)}/{Ranks(InFlight)}";
        }
    }

    /// <summary>The next state, and what is seen of the step.</summary>
    /// <param name="step">What happens.</param>
    /// <param name="id">The number of a request that is submitted.</param>
    internal (RouterModelState Next, RouterSeen Seen) After(RouterStep step, int id) => step switch
    {
        RouterStep.Submit => Submit(id),
        RouterStep.EndOldest => End(InFlight[0], failed: false),
        RouterStep.EndNewest => End(InFlight[^1], failed: false),
        RouterStep.FailOldest => End(InFlight[0], failed: true),
        RouterStep.FailNewest => End(InFlight[^1], failed: true),
        RouterStep.HoldNone => Hold(0),
        RouterStep.HoldOne => Hold(1),
        RouterStep.HoldTwo => Hold(2),
        RouterStep.Drain => Drain(),
        RouterStep.Resume => Resume(),
        RouterStep.ForwardToOther => Phase == RouterState.Reassigning ? (this with { Owner = 1 - Owner }).Resume() : Refused,
        RouterStep.ReassignToOther => Phase == RouterState.Reassigning ? (this with { Owner = 1 - Owner }, new RouterSeen()) : Refused,
        RouterStep.TakeHeld => (this with { Held = [] }, new RouterSeen { TakenBack = Held }),
        RouterStep.CloseGate => (this with { GateIsClosed = true }, new RouterSeen()),
        RouterStep.OpenGate => (this with { GateIsClosed = false }).Release(),
        _ => throw new ArgumentOutOfRangeException(nameof(step)),
    };

    /// <summary>Whether a step means anything now; a request is submitted also where there is no room, as a front end never does.</summary>
    internal bool IsPossible(RouterStep step, int mostLive) => step switch
    {
        RouterStep.Submit => Live < mostLive,
        RouterStep.EndOldest or RouterStep.FailOldest => !InFlight.IsEmpty,
        RouterStep.EndNewest or RouterStep.FailNewest => InFlight.Length > 1,
        _ => true,
    };

    private (RouterModelState Next, RouterSeen Seen) Refused => (this, new RouterSeen { Throws = true });

    private (RouterModelState Next, RouterSeen Seen) Submit(int id)
    {
        if (Phase == RouterState.Forwarding && Held.IsEmpty && !GateIsClosed)
        {
            return (this with { InFlight = InFlight.Add(id) }, new RouterSeen { Arrived = [id] });
        }

        return Phase != RouterState.Forwarding && Held.Length >= Most
            ? (this, new RouterSeen { Refused = [id] })
            : (this with { Held = Held.Add(id) }, new RouterSeen());
    }

    private (RouterModelState Next, RouterSeen Seen) End(int id, bool failed)
    {
        RouterModelState next = this with
        {
            InFlight = InFlight.Remove(id),
            Failed = failed ? [.. Failed.Append(id).Order()] : Failed,
            Phase = failed && Phase == RouterState.Forwarding ? RouterState.Holding : Phase,
            Most = failed && Phase == RouterState.Forwarding ? 0 : Most,
        };
        bool drained = Phase == RouterState.Draining && next.InFlight.IsEmpty;
        return (drained ? next with { Phase = RouterState.Reassigning } : next,
            new RouterSeen { Ended = failed ? [] : [id], DrainEnds = drained });
    }

    private (RouterModelState Next, RouterSeen Seen) Hold(int most) =>
        (this with { Most = most, Phase = Phase == RouterState.Forwarding ? RouterState.Holding : Phase }, new RouterSeen());

    private (RouterModelState Next, RouterSeen Seen) Drain() => Phase switch
    {
        RouterState.Forwarding => Refused,
        RouterState.Reassigning => (this, new RouterSeen { DrainEnds = true }),
        _ when InFlight.IsEmpty => (this with { Phase = RouterState.Reassigning }, new RouterSeen { DrainEnds = true }),
        _ => (this with { Phase = RouterState.Draining }, new RouterSeen()),
    };

    private (RouterModelState Next, RouterSeen Seen) Resume()
    {
        (RouterModelState next, RouterSeen seen) = (this with { Phase = RouterState.Forwarding }).Release();
        return (next, seen with { DrainIsCanceled = DrainIsPending });
    }

    // What failed has passed the gate before, and is older than what is held.
    private (RouterModelState Next, RouterSeen Seen) Release()
    {
        if (Phase != RouterState.Forwarding)
        {
            return (this, new RouterSeen());
        }

        ImmutableArray<int> goes = GateIsClosed ? Failed : Failed.AddRange(Held);
        RouterModelState next = this with { Failed = [], Held = GateIsClosed ? Held : [], InFlight = InFlight.AddRange(goes) };
        return (next, new RouterSeen { Arrived = goes });
    }
}

/// <summary>What is seen of one step from outside.</summary>
internal sealed record RouterSeen
{
    /// <summary>Requests that reached the owner.</summary>
    internal ImmutableArray<int> Arrived { get; init; } = [];

    /// <summary>Requests whose front end heard of their end.</summary>
    internal ImmutableArray<int> Ended { get; init; } = [];

    /// <summary>Requests that were refused for want of room.</summary>
    internal ImmutableArray<int> Refused { get; init; } = [];

    /// <summary>Requests that were taken back.</summary>
    internal ImmutableArray<int> TakenBack { get; init; } = [];

    /// <summary>It was refused, and nothing changed.</summary>
    internal bool Throws { get; init; }

    /// <summary>The wait for the end of what is in flight is over, or canceled because the hold ended.</summary>
    internal bool DrainEnds { get; init; }

    internal bool DrainIsCanceled { get; init; }

    public override string ToString() =>
        $"arrived [{string.Join(',', Arrived)}] ended [{string.Join(',', Ended)}] refused [{string.Join(',', Refused)}] "
        + $"taken [{string.Join(',', TakenBack)}] throws {Throws} drained {DrainEnds} canceled {DrainIsCanceled}";
}
