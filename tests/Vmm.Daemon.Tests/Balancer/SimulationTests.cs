namespace Vmm.Daemon.Tests.Balancer;

/// <summary>The policy over hours, on synthetic and recorded loads.</summary>
public sealed class SimulationTests
{
    private const ulong GiB = 1UL << 30, MiB = 1UL << 20;
    private const int Hour = 3600;

    /// <summary>
    /// MiB in use of a small build server over 40 minutes: a compile, a pause, a test run (free -m every minute, smoothed).
    /// </summary>
    private const string Builds = "second,MiB\n0,310\n120,340\n180,900\n300,1650\n480,1710\n540,620\n780,380\n1200,370\n1260,700\n1500,"
        + "1220\n1800,1180\n1860,420\n2400,330\n";

    [Theory]
    [InlineData(100)]
    [InlineData(700)]
    [InlineData(1900)]
    public void A_constant_need_settles_and_stays(double need)
    {
        SimulatedGuest guest = new("a", 0, 512 * MiB, 4 * GiB, _ => need) { Present = 2 * GiB, Asked = 2 * GiB };
        Simulator run = new(32 * GiB, 1, guest);
        run.Run(3 * Hour, balanced: true);
        Assert.DoesNotContain(run.Decisions, d => d.Second > 2 * Hour); // settled long before
        Assert.InRange(guest.Present, (ulong)(need * MiB), 4 * GiB);
    }

    [Fact]
    public void Two_guests_that_need_much_in_turn_share_a_node_that_cannot_hold_both()
    {
        SimulatedGuest[] Guests() =>
        [
            new("day", 0, 1 * GiB, 6 * GiB, s => (int)(s / Hour) % 2 == 0 ? 4500 : 500),
            new("night", 0, 1 * GiB, 6 * GiB, s => (int)(s / Hour) % 2 == 1 ? 4500 : 500),
        ];
        SimulatedGuest[] alone = Guests(), helped = Guests();
        new Simulator(8 * GiB, 1, alone).Run(8 * Hour, balanced: false);
        Simulator run = new(8 * GiB, 1, helped);
        run.Run(8 * Hour, balanced: true);
        Assert.Equal(0, run.TightSeconds);
        Assert.True(helped.Sum(g => g.ShortSeconds) < alone.Sum(g => g.ShortSeconds) / 4,
            $"{helped.Sum(g => g.ShortSeconds)} of {alone.Sum(g => g.ShortSeconds)}");
        Assert.InRange(run.Decisions.Count, 1, 8 * 60); // eight swaps of some 30 steps each way
    }

    [Fact]
    public void Recorded_builds_are_short_of_memory_for_less_and_give_it_back()
    {
        Func<double, double> builds = Simulator.Recorded(Builds);
        SimulatedGuest[] Guests() => [.. Enumerable.Range(0, 6)
            .Select(i => new SimulatedGuest($"b{i}", i % 2, 512 * MiB, 3 * GiB, s => builds((s + (i * 397)) % 2400)))];
        SimulatedGuest[] alone = Guests(), helped = Guests();
        new Simulator(6 * GiB, 2, alone).Run(4 * Hour, balanced: false);
        Simulator run = new(6 * GiB, 2, helped);
        run.Run(4 * Hour, balanced: true);
        Assert.Equal(0, run.TightSeconds);
        Assert.True(helped.Sum(g => g.ShortSeconds) < alone.Sum(g => g.ShortSeconds) / 2,
            $"{helped.Sum(g => g.ShortSeconds)} of {alone.Sum(g => g.ShortSeconds)}");
    }

    [Fact]
    public void Guests_of_fixed_memory_that_their_host_cannot_hold_are_shrunk_by_their_balloons_and_get_it_back()
    {
        SimulatedGuest[] Guests() =>
        [
            new("day", 0, 1 * GiB, 6 * GiB, s => (int)(s / Hour) % 2 == 0 ? 4500 : 500)
            {
                ByBalloon = true,
                Present = 6 * GiB,
                Asked = 6 * GiB
            },
            new("night", 0, 1 * GiB, 6 * GiB, s => (int)(s / Hour) % 2 == 1 ? 4500 : 500)
            {
                ByBalloon = true,
                Present = 6 * GiB,
                Asked = 6 * GiB
            },
        ];
        SimulatedGuest[] alone = Guests(), helped = Guests();
        Simulator without = new(8 * GiB, 1, alone), run = new(8 * GiB, 1, helped);
        without.Run(8 * Hour, balanced: false);
        run.Run(8 * Hour, balanced: true);
        Assert.Equal(8 * Hour, without.TightSeconds);
        Assert.InRange(run.TightSeconds, 1, Hour); // until it is in order, and when a guest takes back at once what it was given up
        Assert.True(helped.Sum(g => g.ShortSeconds) < 8 * Hour / 50, $"{helped.Sum(g => g.ShortSeconds)} seconds short");
        Assert.Contains(run.Decisions,
            d => d.Second > Hour && d.Decision.To > d.Decision.From && d.Decision.Reason.StartsWith("it grows", StringComparison.Ordinal));
        Assert.InRange(run.Decisions.Count, 1, 8 * 120);
    }

    [Theory]
    [InlineData(100)]
    [InlineData(1900)]
    public void A_balloon_settles_on_a_constant_need_and_stays(double need)
    {
        SimulatedGuest guest = new("a", 0, 512 * MiB, 4 * GiB, _ => need) { ByBalloon = true, Present = 4 * GiB, Asked = 4 * GiB };
        Simulator run = new(32 * GiB, 1, guest);
        run.Run(12 * Hour, balanced: true);
        Assert.DoesNotContain(run.Decisions, d => d.Second > 10 * Hour);
        double spare = 1 - (need * MiB / guest.Present);
        Assert.True(spare >= 0 && (spare <= run.Rules.High || guest.Present == 512 * MiB), $"{guest.Present} bytes");
        Assert.Equal(0, guest.ShortSeconds);
    }

    [Fact]
    public void A_sawtooth_around_the_threshold_does_not_make_it_swing()
    {
        Random noise = new(3);
        SimulatedGuest guest = new("a", 0, 512 * MiB, 4 * GiB, s => 1000 + (100 * Math.Sin(s / 20)) + noise.Next(-40, 40));
        Simulator run = new(32 * GiB, 1, guest);
        run.Run(6 * Hour, balanced: true);
        Assert.InRange(guest.Changes, 1, 30);
        Assert.DoesNotContain(run.Decisions, d => d.Second > 5 * Hour);
    }

    [Fact]
    public void A_guest_that_clings_is_asked_less_and_less_often()
    {
        SimulatedGuest guest = new("a", 0, 512 * MiB, 4 * GiB, s => s < 600 ? 3000 : 200) { Clings = 3 * GiB };
        Simulator run = new(32 * GiB, 1, guest);
        run.Run(12 * Hour, balanced: true);
        int[] refusals = [.. run.Decisions.Where(d => d.Decision.Reason.Contains("keeps it", StringComparison.Ordinal))
            .Select(d => d.Second)];
        Assert.InRange(refusals.Length, 2, 20);
        Assert.True(refusals[^1] - refusals[^2] >= 3000, string.Join(' ', refusals));
    }
}
