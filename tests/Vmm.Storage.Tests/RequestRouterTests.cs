using Vmm.Io;

namespace Vmm.Storage.Tests;

public sealed class RequestRouterTests
{
    /// <summary>
    /// Submit, complete, hold, resume, gate and take back in any order: nothing is lost, doubled or reordered, and the ledger is right each
    /// time.
    /// </summary>
    [Fact]
    public void The_ledger_balances_at_every_step_and_requests_keep_their_order()
    {
        for (int seed = 0; seed < 200; seed++)
        {
            Play(seed);
        }
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
        Assert.Equal(HoldReasons.Gate, router.Reasons);
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
        Assert.Equal(new RouterLedger(1, 1, 0, 0, 0), router.Ledger);
    }

    private static void Play(int seed)
    {
        Random random = new(seed);
        using IoLoop loop = new();
        Target target = new();
        Gate gate = new();
        using RequestRouter router = new(loop, target);
        List<int> submitted = [], arrived = target.Arrived;
        HashSet<int> takenBack = [];
        Owner[] owners = new Owner[64];
        BlockRequest[] requests = new BlockRequest[64];
        for (int i = 0; i < requests.Length; i++)
        {
            owners[i] = new Owner();
            requests[i] = new BlockRequest(owners[i], i);
            loop.Add(requests[i]);
        }

        int next = 0;
        for (int step = 0; step < 300; step++)
        {
            switch (random.Next(8))
            {
                case 0 or 1 or 2 when next < requests.Length:
                    requests[next].Prepare(BlockKind.Flush);
                    router.Submit(requests[next]);
                    submitted.Add(next++);
                    break;
                case 3 when target.Waiting.Count > 0:
                    target.End();
                    break;
                case 4:
                    router.Hold();
                    break;
                case 5:
                    router.Resume();
                    break;
                case 6:
                    gate.Open = random.Next(2) == 0;
                    router.Gate = random.Next(2) == 0 ? gate : null;
                    break;
                case 7 when random.Next(10) == 0:
                    takenBack.UnionWith(router.TakeHeld().Select(r => r.Token));
                    break;
                default:
                    break;
            }

            RouterLedger ledger = router.Ledger;
            Assert.Equal(ledger.Accepted, ledger.Completed + ledger.InFlight + ledger.Held + ledger.Withdrawn);
            Assert.Equal((submitted.Count, target.Waiting.Count), ((int)ledger.Accepted, ledger.InFlight));
        }

        router.Gate = null;
        router.Resume();
        while (target.Waiting.Count > 0)
        {
            target.End();
        }

        Assert.Equal(submitted.Where(i => !takenBack.Contains(i)), arrived);
        Assert.All(arrived, i => Assert.True(owners[i].Over));
        Assert.All(takenBack, i => Assert.Equal((false, BlockState.New), (owners[i].Over, requests[i].State)));
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
    private sealed class Target : IBlockNode, IBlockLeaf
    {
        public List<BlockRequest> Waiting { get; } = [];

        public List<int> Arrived { get; } = [];

        public BlockGeometry Geometry => new(1 << 20, 512, 512, ReadOnly: false, DiskAbilities.None);

        public int InFlight => Waiting.Count;

        public void Submit(BlockRequest request)
        {
            request.Run(this);
            Waiting.Add(request);
            Arrived.Add(request.Token);
        }

        public void End()
        {
            BlockRequest request = Waiting[0];
            Waiting.RemoveAt(0);
            request.Complete(DiskStatus.Ok);
        }

        public void OnStep(BlockRequest request, int result) => throw new InvalidOperationException();

        public bool WritesZeroesAsData(bool mayUnmap) => true;

        public void Dispose() { }
    }
}
