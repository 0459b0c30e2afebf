using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Tests.Replicas;

/// <summary>The rules by which the primary decides: what to send, whether it may, where it stands.</summary>
public sealed class SendRulesTests
{
    private static readonly Guid s_a = Id(1), s_b = Id(2), s_c = Id(3), s_other = Id(9);

    [Fact]
    public void What_both_sites_have_says_what_is_to_be_done()
    {
        SealedPoint b = Point(s_b, s_a), c = Point(s_c, s_b);
        Assert.Equal(SendStep.Nothing, Next([], Guid.Empty, Guid.Empty).Step);
        Assert.Equal(SendStep.Nothing, Next([], s_a, s_a).Step);
        Assert.Equal(SendStep.Send, Next([Point(s_a, Guid.Empty)], Guid.Empty, Guid.Empty).Step);
        Assert.Equal(SendStep.Send, Next([b, c], s_a, s_a).Step);
        Assert.Equal((SendStep.Acknowledge, 1), Short(Next([b, c], s_a, s_b)));
        Assert.Equal((SendStep.Acknowledge, 2), Short(Next([b, c], s_a, s_c)));
        Assert.Equal(SendStep.Resync, Next([b, c], s_a, s_other).Step);
        Assert.Equal(SendStep.Resync, Next([], s_a, s_other).Step);
        Assert.Equal(SendStep.Resync, Next([], Guid.Empty, s_other).Step);
        Assert.Equal(SendStep.Full, Next([b, c], s_a, Guid.Empty).Step);
        Assert.Equal(SendStep.Full, Next([], s_a, Guid.Empty).Step);
    }

    [Fact]
    public void A_resync_that_was_asked_for_comes_first_and_says_why()
    {
        SendPlan plan = SendPlan.Next([Point(s_b, s_a)], s_a, s_a, "ann asked for it");
        Assert.Equal((SendStep.Resync, "ann asked for it"), (plan.Step, plan.Why));
        Assert.Equal(SendStep.Full, SendPlan.Next([], s_a, Guid.Empty, "ann asked for it").Step);
    }

    /// <summary>A full copy and a resync never go without a reason, and nothing is sent that does not stand on what is there.</summary>
    [Fact]
    public void Whatever_both_sites_have_a_point_is_sent_only_onto_its_parent()
    {
        Random random = new(7);
        Guid[] ids = [Guid.Empty, s_a, s_b, s_c, s_other];
        for (int i = 0; i < 20_000; i++)
        {
            SealedPoint[] spool = [.. Enumerable.Range(0, random.Next(4))
                .Select(n => Point(Id(20 + n), n == 0 ? ids[random.Next(5)] : Id(19 + n)))];
            Guid there = random.Next(3) == 0 && spool.Length > 0 ? spool[random.Next(spool.Length)].Id : ids[random.Next(5)];
            SendPlan plan = SendPlan.Next(spool, ids[random.Next(5)], there, random.Next(5) == 0 ? "asked" : null);
            Assert.True(plan.Step switch
            {
                SendStep.Send => spool[0].Parent == there,
                SendStep.Acknowledge => spool[plan.Points - 1].Id == there,
                SendStep.Resync => plan.Why.Length > 0 && there != Guid.Empty,
                SendStep.Full => plan.Why.Length > 0 && there == Guid.Empty,
                _ => spool.Length == 0,
            });
        }
    }

    [Theory]
    [InlineData(ReplicaSiteState.Receiving, "1", "1", "", true)]
    [InlineData(ReplicaSiteState.Receiving, "1", "2", "1", true)]
    [InlineData(ReplicaSiteState.Receiving, "3", "2", "1", false)]
    [InlineData(ReplicaSiteState.Receiving, "3", "2", "", false)]
    [InlineData(ReplicaSiteState.FailedOver, "1", "1", "", false)]
    [InlineData(ReplicaSiteState.Committed, "1", "1", "", false)]
    public void Nothing_goes_to_a_site_of_another_history(ReplicaSiteState state, string there, string own, string common, bool may)
    {
        ReplicaGenerations known = new(own, common);
        string? fence = Fence.Of(known, new ReplicaSiteInfo("vm", state, new ReplicaGenerations(there), "", [], null, 0));
        Assert.Equal(may, fence is null);
        if (!may)
        {
            // Both histories are named.
            Assert.Contains($"here {own}", fence, StringComparison.Ordinal);
            Assert.Contains($"there {there}", fence, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_history_that_a_person_puts_over_another_one_knows_it()
    {
        ReplicaGenerations over = Fence.Over(new ReplicaGenerations("own", "one", "two"), new ReplicaGenerations("there"));
        Assert.Equal(new ReplicaGenerations("own", "there", "one", "two"), over);
        Assert.Null(Fence.Of(
            over, new ReplicaSiteInfo("vm", ReplicaSiteState.Receiving, new ReplicaGenerations("there"), "", [], null, 0)));
    }

    /// <summary>A person's pause and a fence are left by their own ends only.</summary>
    [Fact]
    public void Only_its_end_leaves_a_suspension_or_a_fence()
    {
        foreach (ReplicaChange change in Enum.GetValues<ReplicaChange>())
        {
            Assert.Equal(
                change switch
                {
                    ReplicaChange.Resumed => ReplicaState.Behind,
                    ReplicaChange.Fenced => ReplicaState.Fenced,
                    _ => null,
                },
                ReplicaTransitions.Next(ReplicaState.Suspended, change));
            Assert.Equal(
                change == ReplicaChange.Released ? ReplicaState.Behind : null, ReplicaTransitions.Next(ReplicaState.Fenced, change));
        }
    }

    /// <summary>From each state each other one can be reached, so none is a trap.</summary>
    [Fact]
    public void No_state_is_a_trap()
    {
        foreach (ReplicaState from in Enum.GetValues<ReplicaState>())
        {
            HashSet<ReplicaState> reached = [from];
            for (int i = 0; i < 10; i++)
            {
                foreach (ReplicaState state in reached.ToArray())
                {
                    reached.UnionWith(Enum.GetValues<ReplicaChange>().Select(change => ReplicaTransitions.Next(state, change) ?? state));
                }
            }

            Assert.Equal(Enum.GetValues<ReplicaState>().Length, reached.Count);
        }
    }

    [Fact]
    public void Waits_double_to_a_minute_and_begin_again()
    {
        Backoff backoff = new(() => 0);
        Assert.Equal([1, 2, 4, 8, 16, 32, 60, 60], Enumerable.Range(0, 8).Select(_ => backoff.Next().TotalSeconds));
        backoff.Reset();
        Assert.Equal(1, backoff.Next().TotalSeconds);
        Assert.Equal(0.75, new Backoff(() => 1).Next().TotalSeconds);
    }

    [Theory]
    [InlineData("another VM")]
    [InlineData("no generation")]
    [InlineData("no point")]
    [InlineData("no disks")]
    [InlineData("half a sector")]
    [InlineData("no hash")]
    [InlineData("no point that comes")]
    [InlineData("a state of tomorrow")]
    public void An_answer_that_cannot_be_is_found(string what)
    {
        string id = s_a.ToString("D");
        ReplicaPointDisk disk = new("disk0", 1 << 20, 1000, new string('0', 64), new string('a', 64));
        ReplicaSiteInfo sound = new(
            id, ReplicaSiteState.Receiving, new ReplicaGenerations(s_b.ToString("D")), s_c.ToString("D"), [disk],
            new ReplicaIntakeInfo(s_other.ToString("D"), [5]), 0);
        Assert.Null(PeerWords.ProblemOf(sound, id));
        ReplicaSiteInfo lie = what switch
        {
            "another VM" => sound with { Vm = s_b.ToString("D") },
            "no generation" => sound with { Generations = new ReplicaGenerations("../x") },
            "no point" => sound with { Newest = "x" },
            "no disks" => sound with { Roots = [] },
            "half a sector" => sound with { Roots = [disk with { Bytes = 700 }] },
            "no hash" => sound with { Roots = [disk with { Root = new string('x', 64) }] },
            "no point that comes" => sound with { Intake = new ReplicaIntakeInfo("", null!) },
            _ => sound with { State = (ReplicaSiteState)77 },
        };
        Assert.NotNull(PeerWords.ProblemOf(lie, id));
        Assert.NotNull(PeerWords.ProblemOf(null, id));
    }

    [Fact]
    public void Settings_are_kept_and_what_cannot_be_read_is_none()
    {
        ReplicaSettings settings = new(
            "https://b:1", ["disk0"], 30, new ReplicaKeep(), 5, 10, new ReplicaGenerations("x"), "p", DateTimeOffset.UnixEpoch, "why",
            "ask", new ReplicaSuspension("ann", "night", DateTimeOffset.UnixEpoch));
        ReplicaSettings read = ReplicaSettings.Parse(settings.ToText())!;
        Assert.Equal(settings with { Disks = null }, read with { Disks = null });
        Assert.Equal(settings.Disks, read.Disks);
        Assert.Null(ReplicaSettings.Parse("{}"));
        Assert.Null(ReplicaSettings.Parse("x"));
    }

    private static SendPlan Next(SealedPoint[] spool, Guid acknowledged, Guid there) => SendPlan.Next(spool, acknowledged, there, null);

    private static (SendStep Step, int Points) Short(SendPlan plan) => (plan.Step, plan.Points);

    private static Guid Id(int number) => new(number, 0, 0, new byte[8]);

    private static SealedPoint Point(Guid id, Guid parent) =>
        new() { Id = id, Parent = parent, Owner = s_other, Time = DateTimeOffset.UnixEpoch, Disks = [] };
}
