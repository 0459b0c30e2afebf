using FsCheck;
using FsCheck.Fluent;
using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>What the policy decides in one round, and what it never does.</summary>
public sealed class PressurePolicyTests
{
    private const ulong MiB = 1 << 20, GiB = 1 << 30, Page = 4096;
    private static readonly PressureRules s_rules = new();

    [Fact]
    public void A_host_that_is_short_takes_from_limits_and_says_why()
    {
        PressureDecision decision = Assert.Single(Once([Vm("a", 1024)], available: 200 * MiB));
        Assert.Equal((PressureMeans.Limit, 1024 * MiB), (decision.Means, decision.From));
        Assert.InRange(decision.From - decision.To, 56 * MiB + 1, 100 * MiB);
        Assert.Equal("the host has 200 MiB available, below 256 MiB; 1024 MiB of it are resident, its weight is 100", decision.Reason);
    }

    [Fact]
    public void Nothing_is_done_where_nothing_is_needed_known_or_possible()
    {
        Assert.Empty(Once([Vm("a", 1024)], available: 300 * MiB));
        Assert.Empty(Once([Vm("a", 1024) with { Stopped = true }], available: 0));
        Assert.Empty(Once([Vm("a", 1024) with { Least = 1024 * MiB }], available: 0));
        Assert.Empty(Once([Vm("a", 1024) with { Resident = 10 * MiB }], available: 0)); // less than its least is resident
        Assert.Empty(PressurePolicy.Decide(
            new PressureSnapshot(new HostReading([], null, "nothing is known"), 256 * MiB, [Vm("a", 1024) with { InForce = 512 * MiB }]),
            new PressureState { CalmSince = TimeSpan.Zero }, s_rules, TimeSpan.FromHours(1)));
    }

    [Fact]
    public void What_a_VM_does_not_use_of_its_limit_is_no_memory_to_take()
    {
        PressureDecision decision = Assert.Single(Once([Vm("a", 1024) with { Resident = 600 * MiB }], available: 200 * MiB));
        Assert.InRange(decision.To, 500 * MiB, 544 * MiB);
    }

    [Fact]
    public void What_is_on_its_way_is_not_taken_twice()
    {
        PressedVm draining = Vm("a", 1024) with { InForce = 700 * MiB, Resident = 1000 * MiB };
        Assert.Empty(Once([draining], available: 100 * MiB));
        Assert.NotEmpty(Once([draining], available: 0, reserve: 512 * MiB));
    }

    [Fact]
    public void A_limit_above_that_of_the_spec_is_none() =>
        Assert.Equal((2048 * MiB, 1024 * MiB), Assert.Single(
            Once([Vm("a", 1024) with { InForce = 2048 * MiB }], available: 4 * GiB)) is var d ? (d.From, d.To) : default);

    [Fact]
    public void Off_it_gives_everything_back_at_once()
    {
        PressedVm vm = Vm("a", 1024) with { InForce = 100 * MiB, Balloon = new(300 * MiB, 300 * MiB, 2 * GiB, 0, Taken: true) };
        IReadOnlyList<PressureDecision> decisions = PressurePolicy.Decide(
            new PressureSnapshot(Host(0), 256 * MiB, [vm], Enabled: false), new PressureState(), s_rules, TimeSpan.Zero);
        Assert.Equal([(PressureMeans.Limit, 1024 * MiB), (PressureMeans.Balloon, 0UL)], decisions.Select(d => (d.Means, d.To)));
    }

    [Fact]
    public void A_node_that_is_short_takes_from_who_is_bound_to_it()
    {
        HostReading host = new([new NodeReading(0, 8 * GiB, 6 * GiB), new NodeReading(1, 8 * GiB, 50 * MiB)], null);
        PressedVm[] vms =
        [
            Vm("here", 1024) with { Nodes = new Dictionary<int, double> { [1] = 1 } },
            Vm("half", 1024) with { Nodes = new Dictionary<int, double> { [0] = 0.5, [1] = 0.5 } },
            Vm("there", 1024) with { Nodes = new Dictionary<int, double> { [0] = 1 } },
            Vm("anywhere", 1024),
        ];
        IReadOnlyList<PressureDecision> decisions = PressurePolicy.Decide(
            new PressureSnapshot(host, 512 * MiB, vms), new PressureState(), s_rules, TimeSpan.Zero);
        Assert.Equal(["half", "here"], decisions.Select(d => d.Vm));
        Assert.All(
            decisions, d => Assert.StartsWith("host node 1 has 50 MiB available, below 256 MiB", d.Reason, StringComparison.Ordinal));
        // 206 MiB and a quarter of the way to the high mark lack on the node; of what "half" gives, half lies there.
        double there = decisions.Sum(d => (d.From - d.To) * (d.Vm == "half" ? 0.5 : 1));
        Assert.InRange(there / MiB, 206 + 32, 206 + 32 + 12);
    }

    [Fact]
    public void Who_is_bound_to_a_node_without_room_gets_nothing_back()
    {
        HostReading host = new([new NodeReading(0, 8 * GiB, 6 * GiB), new NodeReading(1, 8 * GiB, 300 * MiB)], null);
        PressedVm[] vms =
        [
            Vm("full", 1024) with { InForce = 512 * MiB, Nodes = new Dictionary<int, double> { [1] = 1 } },
            Vm("free", 1024) with { InForce = 512 * MiB, Nodes = new Dictionary<int, double> { [0] = 1 } },
        ];
        PressureState state = new() { CalmSince = TimeSpan.Zero };
        PressureSnapshot snapshot = new(host, 400 * MiB, vms); // node 1: 200 MiB, and 300 for the high mark
        Assert.Empty(PressurePolicy.Decide(snapshot, state, s_rules, TimeSpan.FromMinutes(5)));
        snapshot = snapshot with { Host = new([new NodeReading(0, 8 * GiB, 6 * GiB), new NodeReading(1, 8 * GiB, 310 * MiB)], null) };
        PressurePolicy.Decide(snapshot, state, s_rules, TimeSpan.FromMinutes(6));
        IReadOnlyList<PressureDecision> later = PressurePolicy.Decide(snapshot, state, s_rules, TimeSpan.FromMinutes(8));
        Assert.Equal([("free", 768 * MiB), ("full", 520 * MiB)], later.Select(d => (d.Vm, d.To)));
    }

    [Fact]
    public void What_was_given_back_and_is_not_used_yet_is_not_given_twice()
    {
        PressureState state = new() { CalmSince = TimeSpan.Zero };
        PressedVm[] vms =
        [
            Vm("a", 2048) with { InForce = 512 * MiB, Resident = 512 * MiB },
            Vm("b", 2048) with { InForce = 512 * MiB, Resident = 512 * MiB },
        ];
        Assert.InRange(GivenAt(300), 290 * MiB, 304 * MiB);
        Assert.InRange(GivenAt(340), 0UL, 14 * MiB);
        Assert.InRange(GivenAt(500), 100 * MiB, 304 * MiB); // what they did not use for two minutes they do not need

        ulong GivenAt(int second)
        {
            PressureSnapshot snapshot = new(Host((384 + 304) * MiB), 256 * MiB, vms);
            IReadOnlyList<PressureDecision> given = PressurePolicy.Decide(snapshot, state, s_rules, TimeSpan.FromSeconds(second));
            vms = [.. vms.Select(vm => vm with { InForce = given.SingleOrDefault(d => d.Vm == vm.Vm)?.To ?? vm.InForce })];
            return given.Aggregate(0UL, (sum, decision) => sum + decision.To - decision.From);
        }
    }

    [Fact]
    public void A_balloon_that_somebody_sized_is_left_alone()
    {
        PressedBalloon balloon = new(128 * MiB, 128 * MiB, 2 * GiB, 2 * GiB - (128 * MiB), Taken: false);
        Assert.Equal(PressureMeans.Limit, Assert.Single(Once([Vm("a", 1024) with { Balloon = balloon }], available: 200 * MiB)).Means);
    }

    [Fact]
    public void A_guest_that_promises_much_and_gives_nothing_is_asked_once_and_keeps_nobody_waiting_for_long()
    {
        PressureState state = new();
        PressedVm liar = Vm("liar", 1024) with { Least = 1024 * MiB, Balloon = new(0, 0, 2 * GiB, 2 * GiB, Taken: false) };
        PressedVm other = Vm("other", 1024);
        Assert.Contains(At(0), d => d is { Vm: "liar", Means: PressureMeans.Balloon });
        liar = liar with { Balloon = liar.Balloon! with { Target = 256 * MiB, Taken = true } };
        Assert.Contains(At(40), d => d.Vm == "other"); // what it promised does not count any more
        liar = liar with { Balloon = liar.Balloon! with { Target = 0, Taken = false } };
        other = other with { InForce = 512 * MiB, Resident = 512 * MiB };
        Assert.DoesNotContain(At(120), d => d.Vm == "liar");
        IReadOnlyList<PressureDecision> At(int second) => PressurePolicy.Decide(
            new PressureSnapshot(Host(150 * MiB), 256 * MiB, [liar, other]), state, s_rules, TimeSpan.FromSeconds(second));
    }

    [Fact]
    public void A_guest_that_needs_what_its_balloon_has_gets_it_back_while_the_host_is_short()
    {
        PressedBalloon balloon = new(512 * MiB, 512 * MiB, 2 * GiB, 50 * MiB, Taken: true);
        PressedVm vm = Vm("a", 1024) with { Least = 1024 * MiB, Balloon = balloon };
        PressureDecision decision = Assert.Single(Once([vm], available: 100 * MiB));
        Assert.Equal((PressureMeans.Balloon, 256 * MiB), (decision.Means, decision.To));
        Assert.Equal("the guest has only 50 MiB available", decision.Reason);
    }

    [Fact]
    public void What_is_taken_meets_the_need_where_it_can_and_stays_in_all_bounds() =>
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(500), Prop.ForAll(Situations(), situation =>
        {
            (PressedVm[] vms, ulong available, ulong reserve) = situation;
            IReadOnlyList<PressureDecision> decisions = Once(vms, available, reserve: reserve);
            double high = reserve * s_rules.High, goal = reserve + ((high - reserve) * s_rules.Goal), can = 0, coming = 0, taken = 0;
            foreach (PressedVm vm in vms)
            {
                ulong used = Math.Min(vm.InForce, vm.Resident), step = Math.Max(s_rules.LeastStep, (ulong)(used * s_rules.Step)),
                    floor = Math.Max(vm.Least, used > step ? used - step : 0);
                can += vm.Stopped || floor >= used ? 0 : used - floor;
                coming += vm.Stopped || vm.Resident <= vm.InForce ? 0 : vm.Resident - vm.InForce;
                PressureDecision? decision = decisions.SingleOrDefault(d => d.Vm == vm.Vm);
                Assert.True(decision is null || (decision.To >= floor && decision.To < used && !vm.Stopped), $"{vm}: {decision}");
                taken += decision is null ? 0 : used - decision.To;
            }

            double need = available < reserve ? goal - available - coming : 0;
            Assert.True(need > 0 || decisions.Count == 0);
            // A page for each VM whose least is no whole number of grains.
            Assert.True(taken >= Math.Min(need, can) - ((double)vms.Length * Page), $"{taken} of {need}, possible {can}");
            Assert.True(taken <= Math.Max(0, need) + ((double)vms.Length * (s_rules.Grain + Page)), $"{taken} of {need}");
        }));

    [Fact]
    public void What_is_given_back_fits_the_room_and_goes_to_nobody_beyond_its_limit() =>
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(500), Prop.ForAll(Situations(), situation =>
        {
            (PressedVm[] vms, ulong available, ulong reserve) = situation;
            PressureState state = new() { CalmSince = TimeSpan.Zero };
            IReadOnlyList<PressureDecision> decisions = PressurePolicy.Decide(
                new PressureSnapshot(Host(available * 4), reserve, vms), state, s_rules, TimeSpan.FromHours(1));
            double room = (available * 4) - (reserve * s_rules.High), given = 0;
            foreach (PressureDecision decision in decisions.Where(d => !d.Takes))
            {
                PressedVm vm = vms.Single(v => v.Vm == decision.Vm);
                Assert.True(decision.To <= vm.Configured && decision.From == vm.InForce, $"{vm}: {decision}");
                given += decision.To - decision.From;
            }

            Assert.True(given <= Math.Max(0, room) + 1, $"{given} of {room}");
        }));

    private static IReadOnlyList<PressureDecision> Once(PressedVm[] vms, ulong available, ulong reserve = 256 * MiB) =>
        PressurePolicy.Decide(new PressureSnapshot(Host(available), reserve, vms), new PressureState(), s_rules, TimeSpan.FromHours(1));

    private static HostReading Host(ulong available) => new([new NodeReading(0, 64 * GiB, available)], null);

    private static PressedVm Vm(string name, ulong mebibytes) =>
        new(name, mebibytes * MiB, 64 * MiB, mebibytes * MiB, mebibytes * MiB, 100);

    private static Arbitrary<(PressedVm[] Vms, ulong Available, ulong Reserve)> Situations()
    {
        Gen<ulong> pages = Gen.Choose(0, 1 << 19).Select(n => (ulong)n * Page);
        Gen<PressedVm> vm =
            from configured in pages
            from least in pages
            from inForce in pages
            from resident in pages
            from weight in Gen.Choose(1, 10_000)
            from stopped in Gen.Choose(0, 5)
            let limit = configured + (65 * MiB)
            let floor = Math.Clamp(least, 64 * MiB, limit)
            select new PressedVm("", limit, floor, Math.Clamp(inForce, floor, limit), resident, weight) { Stopped = stopped == 0 };
        return (from vms in vm.ArrayOf()
                from available in pages
                from reserve in pages
                select (vms.Select((v, i) => v with { Vm = $"vm{i}" }).ToArray(), available, reserve + MiB)).ToArbitrary();
    }
}
