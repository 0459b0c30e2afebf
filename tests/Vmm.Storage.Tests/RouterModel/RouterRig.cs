using System.Collections.Immutable;
using Vmm.Io;

namespace Vmm.Storage.Tests.RouterModel;

/// <summary>A real router between a front end and two owners, driven by the steps of the model.</summary>
internal sealed class RouterRig : IBlockOwner, IDisposable
{
    private readonly IoLoop _loop = new();
    private readonly BlockRequest[] _slots;
    private readonly Stack<BlockRequest> _free = [];
    private readonly Owner[] _owners;
    private readonly ClosedGate _gate = new();
    private readonly List<int> _arrived = [], _ended = [], _refused = [];
    private readonly Policy _policy = new();
    private Task? _drained;
    private RequestRouter _router;
    private int _owner;

    /// <param name="slots">Most requests at once, and one that is refused.</param>
    internal RouterRig(int slots)
    {
        _slots = [.. Enumerable.Range(0, slots + 1).Select(i => new BlockRequest(this, i))];
        Array.ForEach(_slots, _loop.Add);
        _owners = [new Owner(this), new Owner(this)];
        _router = null!;
    }

    /// <summary>What the router shows.</summary>
    internal (RouterState State, bool HasRoom, int InFlight, int Held, int Kept, bool Drained) Shown =>
        (_router.State, _router.HasRoom, _router.InFlight, _router.Ledger.Held, _router.Kept, _router.IsDrained);

    internal RouterLedger Ledger => _router.Ledger;

    /// <summary>What waits at each owner, as it arrived.</summary>
    internal ImmutableArray<int> At(int owner) => [.. _owners[owner].Waiting.Select(IdOf)];

    /// <summary>A fresh router.</summary>
    internal void Begin()
    {
        Array.ForEach(_slots, _free.Push);
        _router = new RequestRouter(_loop, _owners[0]) { Faults = _policy };
        (_owner, _drained) = (0, null);
    }

    /// <summary>Ends what there is: the slots are free again.</summary>
    internal void End()
    {
        _router.Gate = null;
        _router.Resume();
        foreach (Owner owner in _owners)
        {
            while (owner.Waiting.Count > 0)
            {
                owner.Settle(0, DiskStatus.Ok);
            }
        }

        Poll();
        _router.Dispose();
        _free.Clear();
    }

    /// <summary>Carries a step out, and says what was seen.</summary>
    internal RouterSeen Do(RouterStep step, int id)
    {
        _arrived.Clear();
        _ended.Clear();
        _refused.Clear();
        Task? before = _drained;
        ImmutableArray<int> taken = [];
        bool throws = false;
        try
        {
            taken = Carry(step, id);
        }
        catch (InvalidOperationException)
        {
            throws = true;
        }

        Poll();
        bool over = step == RouterStep.Drain && !throws ? _drained!.IsCompletedSuccessfully
            : before is { IsCompletedSuccessfully: true } && !ReferenceEquals(before, _told);
        bool canceled = before is { IsCanceled: true } && !ReferenceEquals(before, _told);
        _told = over || canceled ? _drained : _told;
        return new RouterSeen
        {
            Arrived = [.. _arrived], Ended = [.. _ended], Refused = [.. _refused], TakenBack = taken, Throws = throws, DrainEnds = over,
            DrainIsCanceled = canceled,
        };
    }

    private Task? _told; // whose end was seen

    private ImmutableArray<int> Carry(RouterStep step, int id)
    {
        List<BlockRequest> at = _owners[_owner].Waiting;
        switch (step)
        {
            case RouterStep.Submit:
                BlockRequest request = _free.Pop();
                request.Prepare(BlockKind.Write, (ulong)id * 512, 512);
                _router.Submit(request);
                break;
            case RouterStep.EndOldest or RouterStep.EndNewest:
                _owners[_owner].Settle(step == RouterStep.EndOldest ? 0 : at.Count - 1, DiskStatus.Ok);
                break;
            case RouterStep.FailOldest or RouterStep.FailNewest:
                _owners[_owner].Settle(step == RouterStep.FailOldest ? 0 : at.Count - 1, DiskStatus.NoSpace);
                break;
            case RouterStep.HoldNone or RouterStep.HoldOne or RouterStep.HoldTwo:
                _router.Hold(step - RouterStep.HoldNone);
                break;
            case RouterStep.Drain:
                _drained = _router.DrainAsync();
                break;
            case RouterStep.Resume:
                _router.Resume();
                break;
            case RouterStep.ForwardToOther:
                int next = 1 - _owner;
                _router.Forward(_owners[next]);
                _owner = next;
                break;
            case RouterStep.ReassignToOther:
                _router.Reassign(_owners[1 - _owner]);
                _owner = 1 - _owner;
                break;
            case RouterStep.TakeHeld:
                return TakeBack();
            default:
                _router.Gate = step == RouterStep.CloseGate ? _gate : null;
                break;
        }

        return [];
    }

    private ImmutableArray<int> TakeBack()
    {
        IReadOnlyList<BlockRequest> taken = _router.TakeHeld();
        ImmutableArray<int> ids = [.. taken.Select(IdOf)];
        foreach (BlockRequest request in taken)
        {
            _free.Push(request);
        }

        return ids;
    }

    private void Poll()
    {
        while (_loop.Poll() > 0)
        {
        }
    }

    void IBlockOwner.Completed(BlockRequest request, DiskStatus status)
    {
        (status == DiskStatus.Ok ? _ended : _refused).Add(IdOf(request));
        _free.Push(request);
    }

    public void Dispose() => _loop.Dispose();

    private static int IdOf(BlockRequest request) => (int)(request.Offset / 512);

    private sealed class Policy : IFaultPolicy
    {
        public bool Keeps(BlockRequest request, DiskStatus status) => true;
    }

    private sealed class ClosedGate : IRequestGate
    {
        public bool TryPass(BlockRequest request, out int wait)
        {
            wait = 1_000_000; // its timer never comes: only another gate lets requests pass
            return false;
        }
    }

    private sealed class Owner(RouterRig rig) : IBlockNode, IBlockLeaf
    {
        internal List<BlockRequest> Waiting { get; } = [];

        public BlockGeometry Geometry => new(1 << 20, 512, 512, ReadOnly: false, DiskAbilities.None);

        public int InFlight => Waiting.Count;

        public void Submit(BlockRequest request)
        {
            request.Run(this);
            Waiting.Add(request);
            rig._arrived.Add(IdOf(request));
        }

        internal void Settle(int index, DiskStatus status)
        {
            BlockRequest request = Waiting[index];
            Waiting.RemoveAt(index);
            request.Complete(status);
        }

        public void OnStep(BlockRequest request, int result) => throw new InvalidOperationException();

        public bool WritesZeroesAsData(bool mayUnmap) => true;

        public ValueTask FlushAndCloseAsync() => default;

        public void Dispose()
        {
            // Nothing is owned.
        }
    }
}
