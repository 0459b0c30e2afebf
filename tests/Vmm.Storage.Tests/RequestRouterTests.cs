using Vmm.Io;

namespace Vmm.Storage.Tests;

public sealed class RequestRouterTests
{
    public static TheoryData<RouterState, string> Refused => new()
    {
        { RouterState.Forwarding, "drain" }, { RouterState.Forwarding, "another owner" },
        { RouterState.Holding, "another owner" }, { RouterState.Draining, "another owner" },
    };

    /// <summary>What is not in the transition table is an error that names the state, and changes nothing.</summary>
    [Theory]
    [MemberData(nameof(Refused))]
    public void A_transition_that_is_not_in_the_table_is_refused(RouterState state, string what)
    {
        using IoLoop loop = new();
        Target target = new(), other = new();
        using RequestRouter router = new(loop, target);
        BlockRequest request = NewRequest(loop, out Owner owner), second = NewRequest(loop, out _);
        request.Prepare(BlockKind.Flush);
        router.Submit(request);
        if (state != RouterState.Forwarding)
        {
            router.Hold();
        }

        Task? drained = state == RouterState.Draining ? router.DrainAsync() : null;
        InvalidOperationException refused = Assert.Throws<InvalidOperationException>(() =>
        {
            if (what == "drain")
            {
                _ = router.DrainAsync();
            }
            else
            {
                router.Forward(other);
            }
        });
        Assert.Contains(state.ToString(), refused.Message, StringComparison.Ordinal);
        Assert.Equal(state, router.State);
        router.Forward(target); // the present owner goes on
        Assert.Equal((RouterState.Forwarding, drained?.IsCanceled), (router.State, drained is null ? null : true));
        second.Prepare(BlockKind.Flush);
        router.Submit(second);
        Assert.Equal((2, 0), (target.Waiting.Count, other.Waiting.Count));
        target.End();
        target.End();
        Assert.True(owner.Over);
    }

    [Fact]
    public void Held_requests_go_to_the_new_owner_after_every_earlier_one_of_the_old()
    {
        using IoLoop loop = new();
        Target first = new(), second = new();
        using RequestRouter router = new(loop, first);
        BlockRequest[] requests = [.. Enumerable.Range(0, 4).Select(i => NewRequest(loop, out Owner _))];
        Array.ForEach(requests, request => request.Prepare(BlockKind.Flush));
        router.Submit(requests[0]);
        router.Hold();
        router.Submit(requests[1]);
        Task drained = router.DrainAsync();
        router.Submit(requests[2]);
        Assert.Equal((RouterState.Draining, false), (router.State, drained.IsCompleted));
        first.End();
        Assert.Equal((RouterState.Reassigning, true), (router.State, drained.IsCompletedSuccessfully));
        router.Submit(requests[3]);
        Assert.Empty(second.Waiting);
        router.Forward(second);
        Assert.Equal(requests[1..], second.Waiting);
        Assert.Equal(new RouterLedger(4, 4, 1, 3, 0, 0), router.Ledger);
        second.End();
        second.End();
        second.End();
    }

    [Fact]
    public void A_failed_reassignment_goes_on_at_the_first_owner_with_nothing_lost()
    {
        using IoLoop loop = new();
        Target target = new();
        using RequestRouter router = new(loop, target);
        BlockRequest[] requests = [.. Enumerable.Range(0, 3).Select(i => NewRequest(loop, out Owner _))];
        router.Hold();
        Array.ForEach(requests, request => request.Prepare(BlockKind.Flush));
        Array.ForEach(requests, router.Submit);
        Assert.True(router.DrainAsync().IsCompletedSuccessfully);
        router.Resume(); // nobody took it over
        Assert.Equal(requests, target.Waiting);
        Array.ForEach(requests, _ => target.End());
        Assert.Equal(new RouterLedger(3, 3, 3, 0, 0, 0), router.Ledger);
    }

    [Fact]
    public void Beyond_its_room_a_router_refuses_and_loses_nothing_that_it_has()
    {
        using IoLoop loop = new();
        Target target = new();
        using RequestRouter router = new(loop, target);
        BlockRequest[] requests = [.. Enumerable.Range(0, 3).Select(i => NewRequest(loop, out Owner _))];
        BlockRequest last = NewRequest(loop, out Owner owner);
        router.Hold(most: 3);
        foreach (BlockRequest request in requests)
        {
            Assert.True(router.HasRoom);
            request.Prepare(BlockKind.Flush);
            router.Submit(request);
        }

        Assert.False(router.HasRoom);
        last.Prepare(BlockKind.Flush);
        router.Submit(last);
        Assert.False(owner.Over); // never inside Submit
        loop.Poll();
        Assert.Equal((true, DiskStatus.IoError), (owner.Over, owner.Status));
        Assert.Equal(new RouterLedger(3, 0, 0, 0, 3, 1), router.Ledger);
        router.Resume();
        Assert.Equal(requests, target.Waiting);
        Assert.True(router.HasRoom);
        Array.ForEach(requests, _ => target.End());
    }

    [Fact]
    public void Closing_waits_for_what_is_in_flight_and_takes_nothing_more()
    {
        using IoLoop loop = new();
        Target target = new();
        RequestRouter router = new(loop, target);
        BlockRequest request = NewRequest(loop, out Owner owner);
        request.Prepare(BlockKind.Flush);
        router.Submit(request);
        Task closed = router.FlushAndCloseAsync().AsTask();
        Assert.Equal((false, false), (closed.IsCompleted, router.HasRoom));
        target.End();
        Assert.Equal((true, true), (closed.IsCompletedSuccessfully, owner.Over));
        router.FlushAndClose(loop); // again: nothing more happens
    }

    /// <summary>
    /// Submit, complete, hold, drain, reassign, resume, gate and take back in any order: nothing is lost, doubled or reordered, no owner
    /// gets a request while another has one, and the ledger is right each time.
    /// </summary>
    [Fact]
    public void The_ledger_balances_at_every_step_and_requests_keep_their_order()
    {
        HashSet<(RouterState From, RouterState To)> seen = [];
        for (int seed = 0; seed < 400; seed++)
        {
            new Play(seed, seen).Run();
        }

        Assert.Equal(6, seen.Count); // every transition of the table, and no other
    }

    [Fact]
    public void A_held_request_is_not_at_the_disk_and_goes_on_after_resume()
    {
        using IoLoop loop = new();
        Target target = new();
        using RequestRouter router = new(loop, target);
        BlockRequest request = NewRequest(loop, out Owner owner);
        router.Hold();
        request.Prepare(BlockKind.Flush);
        router.Submit(request);
        Assert.Equal((BlockState.Held, 0, false), (request.State, target.Waiting.Count, owner.Over));
        Assert.True(router.DrainAsync().IsCompletedSuccessfully);
        Assert.True(router.IsDrained);
        router.Resume();
        Assert.Equal((BlockState.Running, 1), (request.State, target.Waiting.Count));
        Assert.False(router.IsDrained);
        target.End();
        Assert.True(owner.Over);
    }

    [Fact]
    public void A_gate_that_opens_later_lets_the_request_go_by_itself()
    {
        using IoLoop loop = new();
        Target target = new();
        Gate gate = new() { Open = false };
        using RequestRouter router = new(loop, target) { Gate = gate };
        BlockRequest first = NewRequest(loop, out _), second = NewRequest(loop, out _);
        first.Prepare(BlockKind.Flush);
        router.Submit(first);
        second.Prepare(BlockKind.Flush);
        router.Submit(second);
        Assert.True(router.IsHolding);
        Assert.False(router.HasRoom); // a third one waits in the ring as well
        Assert.Equal(1, gate.Asked); // nobody overtakes, and the second was not charged
        gate.Open = true;
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                loop.Wait();
                loop.Poll();
                return target.Waiting.Count == 2;
            },
            20_000));
        Assert.Equal([first, second], target.Waiting);
        Assert.False(router.IsHolding);
        target.End();
        target.End();
    }

    [Fact]
    public void A_request_without_work_takes_its_turn_and_never_reaches_the_disk()
    {
        using IoLoop loop = new();
        Target target = new();
        using RequestRouter router = new(loop, target);
        BlockRequest request = NewRequest(loop, out Owner owner);
        request.Prepare(BlockKind.None);
        router.Submit(request);
        Assert.False(owner.Over);
        Assert.Equal(1, loop.Poll());
        Assert.Equal((true, DiskStatus.Ok, 0), (owner.Over, owner.Status, target.Waiting.Count));
        Assert.Equal(new RouterLedger(1, 1, 1, 0, 0, 0), router.Ledger);
    }

    /// <summary>One random run.</summary>
    private sealed class Play : IDisposable
    {
        private readonly Random _random;
        private readonly HashSet<(RouterState From, RouterState To)> _seen;
        private readonly IoLoop _loop = new();
        private readonly List<int> _arrived = [], _submitted = [];
        private readonly HashSet<int> _takenBack = [], _refused = [];
        private readonly Target[] _targets;
        private readonly Gate _gate = new();
        private readonly RequestRouter _router;
        private readonly Owner[] _owners = new Owner[64];
        private readonly BlockRequest[] _requests = new BlockRequest[64];
        private int _target, _next;
        private Task _drained = Task.CompletedTask;

        public Play(int seed, HashSet<(RouterState From, RouterState To)> seen)
        {
            _random = new Random(seed);
            _seen = seen;
            _targets = [.. Enumerable.Range(0, 3).Select(_ => new Target(_arrived))];
            _router = new RequestRouter(_loop, _targets[0]);
            for (int i = 0; i < _requests.Length; i++)
            {
                _owners[i] = new Owner();
                _requests[i] = new BlockRequest(_owners[i], i);
                _loop.Add(_requests[i]);
            }
        }

        public void Run()
        {
            for (int step = 0; step < 300; step++)
            {
                RouterState before = _router.State;
                Step();
                if (before != _router.State)
                {
                    // Hold may be followed by a drain that ends at once, in one step each.
                    _seen.UnionWith(before == RouterState.Holding && _router.State == RouterState.Reassigning
                        ? [(before, RouterState.Draining), (RouterState.Draining, _router.State)]
                        : [(before, _router.State)]);
                }

                Check();
            }

            _router.Gate = null;
            _router.Resume();
            while (_targets[_target].Waiting.Count > 0)
            {
                _targets[_target].End();
            }

            _loop.Poll(); // the refused ones hear of it
            Check();
            Assert.Equal(_submitted.Where(i => !_takenBack.Contains(i) && !_refused.Contains(i)), _arrived);
            Assert.All(_arrived, i => Assert.Equal((true, DiskStatus.Ok), (_owners[i].Over, _owners[i].Status)));
            Assert.All(_refused, i => Assert.Equal((true, DiskStatus.IoError), (_owners[i].Over, _owners[i].Status)));
            Assert.All(_takenBack, i => Assert.Equal((false, BlockState.New), (_owners[i].Over, _requests[i].State)));
            Dispose();
        }

        public void Dispose()
        {
            _router.Dispose();
            _loop.Dispose();
        }

        private void Step()
        {
            switch (_random.Next(12))
            {
                case 0 or 1 or 2 or 3 when _next < _requests.Length:
                    long refused = _router.Ledger.Refused;
                    bool room = _router.State == RouterState.Forwarding || _router.HasRoom;
                    _requests[_next].Prepare(BlockKind.Flush);
                    _router.Submit(_requests[_next]);
                    Assert.Equal(room ? 0 : 1, _router.Ledger.Refused - refused);
                    _ = room || _refused.Add(_next);
                    _submitted.Add(_next++);
                    break;
                case 4 or 5 when _targets[_target].Waiting.Count > 0:
                    _targets[_target].End();
                    break;
                case 6:
                    _router.Hold(_random.Next(3) == 0 ? _random.Next(4) : int.MaxValue);
                    break;
                case 7 when _router.State != RouterState.Forwarding:
                    _drained = _router.DrainAsync();
                    break;
                case 8:
                    Reassign();
                    break;
                case 9 when _random.Next(2) == 0:
                    _router.Resume();
                    break;
                case 10:
                    _gate.Open = _random.Next(2) == 0;
                    _router.Gate = _random.Next(2) == 0 ? _gate : null;
                    break;
                case 11 when _random.Next(10) == 0:
                    _takenBack.UnionWith(_router.TakeHeld().Select(r => r.Token));
                    break;
                default:
                    break;
            }
        }

        private void Reassign()
        {
            int to = _random.Next(_targets.Length);
            if (to == _target || _router.State == RouterState.Reassigning)
            {
                _target = to;
                _router.Forward(_targets[to]);
            }
            else
            {
                Assert.Throws<InvalidOperationException>(() => _router.Forward(_targets[to]));
            }
        }

        private void Check()
        {
            RouterLedger ledger = _router.Ledger;
            Assert.Equal(ledger.Accepted, ledger.Completed + ledger.InFlight + ledger.Held);
            Assert.Equal(ledger.Forwarded, ledger.Completed + ledger.InFlight);
            Assert.Equal((ledger.InFlight, ledger.Held), _router.Load);
            Assert.Equal(
                (_submitted.Count - _takenBack.Count - _refused.Count, _targets[_target].Waiting.Count, _refused.Count),
                ((int)ledger.Accepted, ledger.InFlight, (int)ledger.Refused));
            Assert.All(_targets, t => Assert.True(ReferenceEquals(t, _targets[_target]) || t.Waiting.Count == 0));
            Assert.Equal(_router.State == RouterState.Reassigning, _router.IsDrained);
            Assert.False(_router.IsDrained && ledger.InFlight > 0);
            Assert.Equal(_router.State == RouterState.Draining, !_drained.IsCompleted);
        }
    }

    private static BlockRequest NewRequest(IoLoop loop, out Owner owner)
    {
        owner = new Owner();
        BlockRequest request = new(owner);
        loop.Add(request);
        return request;
    }

    private sealed class Owner : IBlockOwner
    {
        public bool Over { get; private set; }

        public DiskStatus Status { get; private set; }

        public void Completed(BlockRequest request, DiskStatus status)
        {
            Assert.False(Over);
            (Over, Status) = (true, status);
        }
    }

    private sealed class Gate : IRequestGate
    {
        public bool Open { get; set; } = true;

        public int Asked { get; private set; }

        public bool TryPass(BlockRequest request, out int wait)
        {
            Asked++;
            wait = 1;
            return Open;
        }
    }

    // A disk whose requests end when the test says so.
    private sealed class Target(List<int>? arrived = null) : IBlockNode, IBlockLeaf
    {
        public List<BlockRequest> Waiting { get; } = [];

        public BlockGeometry Geometry => new(1 << 20, 512, 512, ReadOnly: false, DiskAbilities.None);

        public int InFlight => Waiting.Count;

        public void Submit(BlockRequest request)
        {
            request.Run(this);
            Waiting.Add(request);
            arrived?.Add(request.Token);
        }

        public void End()
        {
            BlockRequest request = Waiting[0];
            Waiting.RemoveAt(0);
            request.Complete(DiskStatus.Ok);
        }

        public void OnStep(BlockRequest request, int result) => throw new InvalidOperationException();

        public bool WritesZeroesAsData(bool mayUnmap) => true;

        public ValueTask FlushAndCloseAsync() => default;

        public void Dispose() { }
    }
}
