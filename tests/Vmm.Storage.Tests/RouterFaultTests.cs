using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>Requests that the host failed and that a router keeps until it may issue them again.</summary>
public sealed class RouterFaultTests
{
    /// <summary>Each request ends once, is carried out once, and nothing overtakes what failed.</summary>
    [Fact]
    public void Random_faults_lose_double_and_reorder_nothing()
    {
        for (int seed = 0; seed < 300; seed++)
        {
            using FaultyStack stack = new(seed);
            stack.Run(requests: 200);
        }
    }

    [Fact]
    public void What_is_kept_goes_first_and_in_the_order_of_its_submission()
    {
        using FaultyStack stack = new(0) { Fails = _ => true };
        stack.Submit(0);
        stack.Submit(1);
        stack.Submit(2);
        stack.Settle(2, 0, 1); // they fail in another order
        Assert.Equal((3, RouterState.Holding, false), (stack.Router.Kept, stack.Router.State, stack.Router.HasRoom));
        stack.Fails = _ => false;
        stack.Issued.Clear();
        stack.Resume();
        Assert.Equal([0, 1, 2], stack.Issued);
        stack.Settle(0, 1, 2);
        Assert.Equal([0, 1, 2], stack.Ended.Order());
    }

    [Theory]
    [InlineData(BlockKind.Flush, DiskStatus.NoSpace, false)]
    [InlineData(BlockKind.Flush, DiskStatus.IoError, false)]
    [InlineData(BlockKind.Write, DiskStatus.NotSupported, false)]
    [InlineData(BlockKind.Write, DiskStatus.NoSpace, true)]
    [InlineData(BlockKind.WriteZeroes, DiskStatus.NoSpace, true)]
    [InlineData(BlockKind.Discard, DiskStatus.IoError, true)]
    [InlineData(BlockKind.Read, DiskStatus.IoError, true)]
    public void A_flush_that_failed_is_never_repeated(BlockKind kind, DiskStatus status, bool kept)
    {
        using FaultyStack stack = new(0) { Fails = _ => true, Fault = status };
        stack.Submit(0, kind);
        stack.Settle(0);
        Assert.Equal(kept ? 1 : 0, stack.Router.Kept);
        Assert.Equal(kept ? [] : [0], stack.Ended);
        stack.Fails = _ => false;
    }

    [Fact]
    public void Without_a_policy_the_front_end_hears_of_every_fault()
    {
        using FaultyStack stack = new(0) { Fails = _ => true };
        stack.Router.Faults = null;
        stack.Submit(0);
        stack.Settle(0);
        Assert.Equal([0], stack.Ended);
        Assert.Equal(RouterState.Forwarding, stack.Router.State);
        stack.Fails = _ => false;
    }

    [Fact]
    public void A_drain_ends_while_requests_are_kept_and_taking_back_leaves_them()
    {
        using FaultyStack stack = new(0) { Fails = id => id == 0 };
        stack.Submit(0);
        stack.Submit(1);
        stack.Settle(0); // 1 is in flight still
        stack.Router.Hold(0);
        Assert.Empty(stack.Router.TakeHeld());
        Task drained = stack.Router.DrainAsync();
        Assert.False(drained.IsCompleted);
        stack.Settle(1);
        Assert.True(drained.IsCompletedSuccessfully);
        Assert.Equal(1, stack.Router.Kept);
        stack.Fails = _ => false;
        stack.Resume();
        stack.Settle(0);
        Assert.Equal([1, 0], stack.Ended);
    }

    /// <summary>A router over a node whose requests end when the test says so, or at random.</summary>
    private sealed class FaultyStack : IBlockOwner, IFaultPolicy, IBlockNode, IBlockLeaf
    {
        private const int Depth = 16;
        private readonly IoLoop _loop = new();
        private readonly Random _random;
        private readonly BlockRequest[] _slots = new BlockRequest[Depth];
        private readonly Stack<int> _free = new();
        private readonly List<BlockRequest> _running = [];
        private readonly Dictionary<int, int> _done = []; // how often each was carried out
        private int _lastIssued = -1;
        private bool _repeats;

        internal FaultyStack(int seed)
        {
            _random = new Random(seed);
            Router = new RequestRouter(_loop, this) { Faults = this };
            for (int i = 0; i < Depth; i++)
            {
                _slots[i] = new BlockRequest(this, i);
                _loop.Add(_slots[i]);
                _free.Push(i);
            }

            Fails = _ => _random.Next(5) == 0;
        }

        internal RequestRouter Router { get; }

        internal Func<int, bool> Fails { get; set; }

        internal DiskStatus Fault { get; init; } = DiskStatus.NoSpace;

        /// <summary>Numbers of requests as the node got them.</summary>
        internal List<int> Issued { get; } = [];

        internal List<int> Ended { get; } = [];

        public BlockGeometry Geometry => new(1 << 20, 512, 512, ReadOnly: false, DiskAbilities.None);

        public int InFlight => _running.Count;

        public bool Keeps(BlockRequest request, DiskStatus status) => true;

        public bool WritesZeroesAsData(bool mayUnmap) => true;

        public ValueTask FlushAndCloseAsync() => default;

        public void Submit(BlockRequest request)
        {
            int id = (int)(request.Offset / 512);
            Assert.False(Router.Kept > 0 && !_repeats, "nothing goes on while something is kept");
            Assert.True(id > _lastIssued || _repeats, $"{id} after {_lastIssued}");
            _lastIssued = Math.Max(id, _lastIssued);
            Issued.Add(id);
            request.Run(this);
            _running.Add(request);
        }

        public void OnStep(BlockRequest request, int result) => request.Complete((DiskStatus)result);

        public void Completed(BlockRequest request, DiskStatus status)
        {
            Ended.Add((int)(request.Offset / 512));
            _free.Push(request.Token);
        }

        internal void Submit(int id, BlockKind kind = BlockKind.Write)
        {
            BlockRequest request = _slots[_free.Pop()];
            request.Prepare(kind, (ulong)id * 512, 512);
            Router.Submit(request);
        }

        /// <summary>The node ends these.</summary>
        internal void Settle(params int[] ids)
        {
            foreach (int id in ids)
            {
                BlockRequest request = _running.Single(r => (int)(r.Offset / 512) == id);
                _running.Remove(request);
                bool fails = Fails(id);
                if (!fails)
                {
                    _done[id] = _done.GetValueOrDefault(id) + 1;
                }

                _loop.CompleteLater(request, (int)(fails ? Fault : DiskStatus.Ok));
                while (_loop.Poll() > 0)
                {
                }

                RouterLedger ledger = Router.Ledger;
                Assert.Equal(ledger.Accepted, ledger.Completed + ledger.InFlight + ledger.Held);
                Assert.Equal(_running.Count, ledger.InFlight);
            }
        }

        internal void Run(int requests)
        {
            int next = 0;
            while (Ended.Count < requests)
            {
                if (next < requests && _free.Count > 0 && Router.HasRoom && _random.Next(2) == 0)
                {
                    Submit(next++);
                }
                else if (_running.Count > 0)
                {
                    Settle((int)(_running[_random.Next(_running.Count)].Offset / 512));
                }
                else if (Router.Kept > 0)
                {
                    next -= GoOn();
                }
            }

            Assert.Equal(Enumerable.Range(0, requests), Ended.Order());
            Assert.Equal(Enumerable.Range(0, requests), _done.Keys.Order());
            Assert.All(_done.Values, times => Assert.Equal(1, times));
        }

        /// <summary>What is kept is issued again, before all others.</summary>
        internal void Resume()
        {
            _repeats = true;
            Router.Resume();
            _repeats = false;
        }

        // As a pause and a resume do it, or at once.
        private int GoOn()
        {
            int given = 0;
            if (_random.Next(2) == 0)
            {
                Router.Hold(0);
                foreach (BlockRequest back in Router.TakeHeld())
                {
                    _free.Push(back.Token);
                    given++;
                }

                Assert.True(Router.DrainAsync().IsCompletedSuccessfully);
            }

            int before = Issued.Count, kept = Router.Kept;
            Resume();
            Assert.Equal(kept, Issued.Count - before);
            Assert.Equal(Issued[before..].Order(), Issued[before..]);
            return given;
        }

        public void Dispose()
        {
            Fails = _ => false;
            while (_running.Count > 0)
            {
                Settle((int)(_running[0].Offset / 512));
            }

            if (Router.InFlight == 0)
            {
                Router.Dispose(); // an assertion that failed amid a submission left it counting, and would be waited for without end
            }

            _loop.Dispose();
        }
    }
}
