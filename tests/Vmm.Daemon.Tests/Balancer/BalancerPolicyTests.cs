using Vmm.Daemon.Balancer;

namespace Vmm.Daemon.Tests.Balancer;

/// <summary>What the policy decides in one round, and what it never does.</summary>
public sealed class BalancerPolicyTests
{
    private const ulong MiB = 1 << 20, GiB = 1 << 30;

    [Fact]
    public void A_vnode_short_of_memory_grows_by_a_step_and_says_why()
    {
        BalancerDecision decision = Assert.Single(Once([Vnode("a", available: 50 * MiB)], available: 8 * GiB));
        Assert.Equal((1024 * MiB, (1024 + 128) * MiB), (decision.From, decision.To));
        Assert.Equal("it grows: 50MiB of 1GiB available (5 %, below 15 %)", decision.Reason);
    }

    [Fact]
    public void One_whose_tasks_wait_grows_whatever_is_available() =>
        Assert.Contains(
            "waited for memory 20 % of the time",
            Assert.Single(Once([Vnode("a", available: 800 * MiB) with { Stall = 0.2 }], available: 8 * GiB)).Reason,
            StringComparison.Ordinal);

    [Fact]
    public void Nothing_is_done_where_nothing_is_known_or_allowed_or_needed_or_under_way()
    {
        Assert.Empty(Once([Vnode("a", available: null)], available: 8 * GiB));
        Assert.Empty(Once([Vnode("a", available: 0) with { Balanced = false }], available: 8 * GiB));
        Assert.Empty(Once([Vnode("a", available: 300 * MiB)], available: 8 * GiB));
        Assert.Empty(Once([Vnode("a", available: 0) with { Asked = 1200 * MiB }], available: 8 * GiB));
        Assert.Empty(Once([Vnode("a", available: 0) with { Asked = 4 * GiB, Present = 4 * GiB }], available: 8 * GiB));
        Assert.Empty(Once([Vnode("a", available: 1000 * MiB)], available: 8 * GiB)); // it has too much, but nobody wants it yet
    }

    [Fact]
    public void What_is_not_enough_for_all_is_shared_by_weight_and_the_rest_asked_back()
    {
        IReadOnlyList<BalancerDecision> decisions = Once(
            [Vnode("a", available: 10 * MiB) with { Weight = 300 }, Vnode("b", available: 10 * MiB), Vnode("idle", available: 900 * MiB)],
            available: (256 * 2 * MiB) + (100 * MiB), total: 64 * GiB, rules: new() { ReserveShare = 0, ReserveBytes = 512 * MiB });
        Assert.Equal([("a", 76UL), ("b", 24UL), ("idle", 0UL)], decisions.Select(d => (d.Vm, d.To > d.From ? (d.To - d.From) / MiB : 0)));
        Assert.Contains(
            "host node 0 has room for 100MiB of 256MiB wished, its weight is 300", decisions[0].Reason, StringComparison.Ordinal);
        Assert.Equal(128 * MiB, decisions[2].From - decisions[2].To); // a step at most, though 156 MiB lack
        Assert.Contains("host node 0 lacks 156MiB", decisions[2].Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void A_guest_that_keeps_what_it_was_asked_for_is_let_alone_for_longer_each_time()
    {
        BalancerState state = new();
        VnodeSample clings = Vnode("a", available: 700 * MiB) with { Asked = 1024 * MiB, Present = 1536 * MiB };
        Assert.Empty(At(0, clings));
        Assert.Empty(At(50, clings));
        BalancerDecision kept = Assert.Single(At(60, clings));
        Assert.Equal(1536 * MiB, kept.To);
        Assert.Contains("has not given back 512MiB in 60 s", kept.Reason, StringComparison.Ordinal);
        VnodeSample idle = clings with { Asked = 1536 * MiB, Available = 1500 * MiB };
        Assert.Empty(At(70, idle));
        Assert.Empty(At(175, idle));
        Assert.NotEmpty(At(371, idle)); // 5 minutes of too much, and its rest is over
        IReadOnlyList<BalancerDecision> At(int second, VnodeSample vnode) =>
            BalancerPolicy.Decide(
                new BalancerSnapshot([vnode], [new HostSample(0, 64 * GiB, 32 * GiB)]),
                state,
                new BalancerRules(),
                TimeSpan.FromSeconds(second));
    }

    [Fact]
    public void A_balloon_takes_what_nobody_needs_in_smaller_steps()
    {
        VnodeSample idle = Vnode("idle", available: 900 * MiB) with { ByBalloon = true },
            needy = Vnode("needy", available: 10 * MiB) with { ByBalloon = true };
        IReadOnlyList<BalancerDecision> decisions = Once(
            [idle, needy], available: 512 * MiB, rules: new() { ReserveShare = 0, ReserveBytes = 512 * MiB });
        Assert.Equal(128 * MiB, Assert.Single(decisions).From - decisions[0].To);
        Assert.Equal(128 * MiB, Assert.Single(Once([needy], available: 8 * GiB)) is var grown ? grown.To - grown.From : 0);
        BalancerState state = new();
        Assert.Equal([64 * MiB, 128 * MiB], new[] { idle, idle with { Vm = "other", ByBalloon = false } }.Select(vnode =>
        {
            BalancerSnapshot snapshot = new([vnode], [new HostSample(0, 64 * GiB, 32 * GiB)]);
            Assert.Empty(BalancerPolicy.Decide(snapshot, state, new BalancerRules(), TimeSpan.Zero));
            BalancerDecision decision = Assert.Single(BalancerPolicy.Decide(snapshot, state, new BalancerRules(), TimeSpan.FromMinutes(5)));
            return decision.From - decision.To;
        }));
    }

    [Fact]
    public void What_a_guest_took_back_out_of_its_balloon_for_want_of_memory_it_keeps_at_once()
    {
        VnodeSample guest = Vnode("a", available: 20 * MiB) with { Asked = 1024 * MiB, Present = 1536 * MiB, ByBalloon = true };
        BalancerDecision kept = Assert.Single(Once([guest], available: 8 * GiB));
        Assert.Equal(1536 * MiB, kept.To);
        Assert.StartsWith("it needs the 512MiB that its balloon was asked for and keeps it", kept.Reason, StringComparison.Ordinal);
        Assert.Empty(Once([guest with { Available = 700 * MiB }], available: 8 * GiB)); // it is on its way
        Assert.Empty(Once([guest with { ByBalloon = false }], available: 8 * GiB));
    }

    [Fact]
    public void Random_rounds_keep_every_bound()
    {
        Random random = new(5);
        for (int round = 0; round < 20_000; round++)
        {
            int nodes = random.Next(1, 4);
            VnodeSample[] vnodes = [.. Enumerable.Range(0, random.Next(1, 8)).Select(i => Random(random, i, nodes))];
            HostSample[] hosts = [.. Enumerable.Range(0, nodes)
                .Select(n => new HostSample(n, 16 * GiB, (ulong)random.NextInt64(0, (long)(16 * GiB))))];
            BalancerRules rules = new();
            IReadOnlyList<BalancerDecision> decisions = BalancerPolicy.Decide(
                new BalancerSnapshot(vnodes, hosts), new BalancerState(), rules, TimeSpan.FromHours(1));
            Assert.Distinct(decisions.Select(d => (d.Vm, d.Vnode)));
            Assert.All(decisions, d =>
            {
                VnodeSample vnode = vnodes.Single(v => v.Vm == d.Vm);
                Assert.True(vnode.Balanced && vnode.Available is not null && d.From == vnode.Asked && d.To != d.From
                    && d.Reason.Length > 0);
                Assert.InRange(d.To, vnode.Least, vnode.Most);
                Assert.Equal(0UL, (d.To - vnode.Least) % vnode.Block);
            });
            foreach (HostSample host in hosts)
            {
                VnodeSample[] here = [.. vnodes.Where(v => v.HostNode == host.Node)];
                // What a guest has taken back already is promised, not given.
                ulong given = here.Join(decisions, v => v.Vm, d => d.Vm, (v, d) => (d.To, Had: Math.Max(v.Asked, v.Present)))
                    .Aggregate(0UL, (sum, d) => sum + (d.To > d.Had ? d.To - d.Had : 0));
                ulong pending = here.Aggregate(0UL, (sum, v) => sum + (v.Asked > v.Present ? v.Asked - v.Present : 0)),
                    promised = here.Aggregate(0UL, (sum, v) => sum + Math.Max(v.Asked, v.Present));
                Assert.True(
                    given == 0 || (given + pending + rules.ReserveOf(host) <= host.Available
                        && given + promised + rules.ReserveOf(host) <= host.Total),
                    $"round {round}: {given} of {host}");
            }
        }
    }

    [Fact]
    public void A_heavier_guest_never_gets_less()
    {
        Random random = new(6);
        for (int round = 0; round < 2000; round++)
        {
            int weight = random.Next(1, 500), more = random.Next(1, 500);
            ulong room = (512 + ((ulong)random.Next(0, 200) * 2)) * MiB;
            Assert.True(GrantOf(weight + more, room) >= GrantOf(weight, room));
        }

        static ulong GrantOf(int weight, ulong room)
        {
            IReadOnlyList<BalancerDecision> decisions = Once(
                [Vnode("a", available: 0) with { Weight = weight }, Vnode("b", available: 0),
                    Vnode("c", available: 0) with { Weight = 70 }], room,
                rules: new() { ReserveShare = 0, ReserveBytes = 512 * MiB });
            return decisions.SingleOrDefault(d => d.Vm == "a") is { } own ? own.To - own.From : 0;
        }
    }

    private static VnodeSample Random(Random random, int index, int nodes)
    {
        ulong least = (ulong)random.Next(1, 512) * 2 * MiB, grow = (ulong)random.Next(0, 1024) * 2 * MiB;
        ulong asked = least + ((ulong)random.NextInt64(0, (long)(grow / (2 * MiB)) + 1) * 2 * MiB),
            present = random.Next(3) > 0 ? asked : least + ((ulong)random.NextInt64(0, (long)(grow / (2 * MiB)) + 1) * 2 * MiB);
        return new VnodeSample(
            $"vm{index}", random.Next(3), random.Next(nodes), least, least + grow, asked, present, 2 * MiB, random.Next(1, 1000),
            random.Next(4) == 0 ? null : (ulong)random.NextInt64(0, (long)present + 1), random.Next(3) == 0 ? random.NextDouble() : null,
            random.Next(5) > 0, random.Next(3) == 0);
    }

    private static VnodeSample Vnode(string vm, ulong? available) =>
        new(vm, 0, 0, 512 * MiB, 4 * GiB, GiB, GiB, 2 * MiB, 100, available, null);

    private static IReadOnlyList<BalancerDecision> Once(
        VnodeSample[] vnodes, ulong available, ulong total = 64UL << 30, BalancerRules? rules = null) =>
        BalancerPolicy.Decide(
            new BalancerSnapshot(vnodes, [new HostSample(0, total, available)]),
            new BalancerState(),
            rules ?? new BalancerRules(),
            TimeSpan.Zero);
}
