using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>The policy over hours, on loads that stay, change and lie.</summary>
public sealed class PressureSimulationTests
{
    private const ulong MiB = 1 << 20;
    private const int Minute = 60, Hour = 3600;

    [Fact]
    public void A_host_that_is_short_for_an_hour_takes_what_it_needs_and_gives_all_of_it_back()
    {
        PressedGuest[] guests =
        [
            new("a", 1024, _ => 200) { Cold = 800 * MiB },
            new("b", 1024, _ => 200) { Cold = 800 * MiB },
            new("c", 1024, _ => 200) { Cold = 800 * MiB },
        ];
        PressureSimulator run = new(4096, s => s is >= Hour and < 2 * Hour ? 2000 : 300, guests);
        run.Run(Hour - 1);
        Assert.Empty(run.Decisions);
        run.Run(Hour);
        Assert.InRange(run.Available, run.Reserve, 2 * run.Reserve);
        Assert.All(guests, guest => Assert.InRange(guest.InForce, 300 * MiB, 1000 * MiB));
        Assert.InRange(run.TightSeconds, 1, 5 * Minute);
        int squeezed = run.Decisions.Count;
        run.Run(Hour);
        Assert.All(guests, guest => Assert.Equal(guest.Configured, guest.InForce));
        Assert.All(run.Decisions.Skip(squeezed), d => Assert.False(d.Decision.Takes, d.ToString()));
        Assert.InRange(run.Decisions.Count, 6, 60);
    }

    [Theory]
    [InlineData(0.2)]
    [InlineData(0.5)]
    [InlineData(0.8)]
    public void A_constant_load_settles_and_stays(double used)
    {
        PressedGuest[] guests = [.. Enumerable.Range(0, 6).Select(i => new PressedGuest(
            $"g{i}", 1024, _ => 1024 * used) { Cold = 512 * MiB, Weight = 50 * (i + 1) })];
        PressureSimulator run = new(4096, _ => 400, guests);
        run.Run(4 * Hour);
        Assert.NotEmpty(run.Decisions);
        Assert.DoesNotContain(run.Decisions, d => d.Second > Hour); // settled long before
        Assert.True(run.Available >= run.Reserve);
    }

    [Fact]
    public void Noise_around_the_mark_does_not_make_it_swing()
    {
        Random noise = new(5);
        PressedGuest[] guests = [.. Enumerable.Range(0, 4).Select(i => new PressedGuest($"g{i}", 1024, _ => 300) { Cold = 700 * MiB })];
        PressureSimulator run = new(4096, s => 400 + (40 * Math.Sin(s / 30)) + noise.Next(-15, 15), guests);
        run.Run(6 * Hour);
        Assert.InRange(run.Decisions.Count, 1, 60);
        Assert.DoesNotContain(run.Decisions, d => d.Second > 5 * Hour);
    }

    [Fact]
    public void Who_has_twice_the_weight_keeps_twice_as_much()
    {
        PressedGuest light = new("light", 2048, _ => 100) { Cold = 1900 * MiB, Weight = 100 },
            heavy = new("heavy", 2048, _ => 100) { Cold = 1900 * MiB, Weight = 200 };
        PressureSimulator run = new(4096, s => Math.Min(2000, s), light, heavy); // steps bound how fast a sudden need is shared
        run.Run(Hour);
        Assert.InRange((double)heavy.InForce / light.InForce, 1.9, 2.1);
        Assert.True(run.Available >= run.Reserve);
    }

    [Fact]
    public void Who_waits_for_its_pages_gives_less_than_who_has_cold_ones()
    {
        PressedGuest busy = new("busy", 1024, _ => 1000), idle = new("idle", 1024, _ => 50) { Cold = 950 * MiB };
        PressureSimulator run = new(4096, s => Math.Min(2800, 1000 + s), busy, idle);
        run.Run(Hour);
        Assert.True(busy.InForce > idle.InForce * 3 / 2, $"{busy.InForce / MiB} and {idle.InForce / MiB}");
    }

    [Fact]
    public void A_need_that_cannot_be_met_takes_everybody_to_the_least_and_not_further()
    {
        PressedGuest[] guests =
        [
            new("a", 1024, _ => 1000) { Least = 300 * MiB },
            new("b", 512, _ => 512) { Least = 500 * MiB, Weight = 10_000 },
        ];
        PressureSimulator run = new(4096, _ => 4090, guests);
        run.Run(Hour);
        Assert.Equal([300 * MiB, 500 * MiB], guests.Select(guest => guest.InForce));
    }

    [Fact]
    public void One_whose_pages_do_not_go_out_keeps_nobody_from_being_relieved()
    {
        PressedGuest stuck = new("stuck", 1024, _ => 100) { Cold = 900 * MiB, Stopped = true },
            other = new("other", 1024, _ => 100) { Cold = 900 * MiB };
        PressureSimulator run = new(4096, _ => 2500, stuck, other);
        run.Run(Hour);
        Assert.Empty(stuck.Changes);
        Assert.True(run.Available >= run.Reserve);
    }

    [Fact]
    public void Pages_that_stop_going_out_count_as_on_their_way_for_a_while_only()
    {
        PressedGuest stuck = new("stuck", 1024, _ => 100) { Cold = 900 * MiB }, other = new("other", 1024, _ => 100) { Cold = 900 * MiB };
        PressureSimulator run = new(4096, s => s < 300 ? 500 : 2500, stuck, other);
        run.Run(301); // its first decision is made
        Assert.NotEmpty(stuck.Changes);
        stuck.Stopped = true;
        run.Run(10 * Minute);
        Assert.True(run.Available >= run.Reserve, $"{run.Available / MiB} MiB");
    }

    [Fact]
    public void No_VM_is_changed_more_often_than_its_rests_say_and_never_out_of_its_bounds()
    {
        for (int seed = 0; seed < 40; seed++)
        {
            Random random = new(seed);
            PressedGuest[] guests = [.. Enumerable.Range(0, random.Next(1, 9)).Select(i => RandomGuest(i, random))];
            double phase = random.Next(50, 2000), swing = random.Next(100, 3000);
            PressureSimulator run = new((ulong)random.Next(1024, 8192), s => 500 + (swing * (1 + Math.Sin(s / phase)) / 2), guests)
            {
                Stall = s => random.NextDouble() * 0.12,
            };
            run.Run(2 * Hour); // its guests look at each decision
            foreach (PressedGuest guest in guests)
            {
                Assert.All(guest.Changes.Zip(guest.Changes.Skip(1)), pair => Assert.True(
                    pair.Second - pair.First >= run.Rules.TakeRest.TotalSeconds, $"seed {seed}, {guest.Name}: {pair}"));
            }

            // Whatever it was: when it is over, everybody has what is theirs.
            run.Enabled = false;
            run.Run(Minute);
            Assert.All(guests, guest => Assert.Equal(guest.Configured, guest.InForce));
        }
    }

    [Fact]
    public void A_daemon_that_comes_later_gives_back_what_an_earlier_one_took()
    {
        PressedGuest[] guests = [new("a", 1024, _ => 300) { InForce = 200 * MiB }, new("b", 512, _ => 400) { InForce = 64 * MiB }];
        PressureSimulator run = new(8192, _ => 300, guests);
        run.Run(Minute);
        Assert.Empty(run.Decisions); // not before it knows that the host is calm
        run.Run(20 * Minute);
        Assert.All(guests, guest => Assert.Equal(guest.Configured, guest.InForce));
    }

    [Fact]
    public void Tasks_that_wait_ask_for_more_than_the_reserve_and_do_not_squeeze_for_ever()
    {
        PressedGuest guest = new("a", 2048, _ => 200) { Cold = 1700 * MiB };
        PressureSimulator run = new(4096, _ => 1850, guest) { Stall = s => s < Hour ? 0.3 : 0 };
        run.Run(Hour);
        Assert.InRange(run.Available, (ulong)(run.Reserve * 1.45), run.Reserve * 2);
        int taken = run.Decisions.Count;
        Assert.DoesNotContain(run.Decisions, d => d.Second > 10 * Minute);
        run.Run(Hour);
        Assert.Equal(taken, run.Decisions.Count); // it has not more than the high mark: nothing is given back
    }

    [Fact]
    public void Balloons_come_first_and_limits_give_the_rest()
    {
        PressedGuest guest = new("a", 2048, _ => 300) { Cold = 1700 * MiB, BalloonTarget = 0, Least = 512 * MiB };
        PressureSimulator run = new(4096, s => s < 4 * Hour ? 2200 : 300, guest);
        run.Run(Hour);
        Assert.Equal(PressureMeans.Balloon, run.Decisions[0].Decision.Means);
        Assert.True(run.Available >= run.Reserve);
        Assert.True(guest.BalloonHeld > 0);
        run.Run(6 * Hour);
        Assert.Equal((0UL, guest.Configured), (guest.BalloonTarget, guest.InForce));
    }

    private static PressedGuest RandomGuest(int number, Random random)
    {
        ulong configured = (ulong)random.Next(65, 2048);
        double least = random.NextDouble(), uses = random.NextDouble() * 1.2, phase = random.Next(20, 900);
        return new PressedGuest($"g{number}", configured, s => configured * uses * (1 + Math.Sin(s / phase)) / 2)
        {
            Least = Math.Max(64 * MiB, (ulong)(configured * least) * MiB),
            Cold = (ulong)random.Next(0, 1024) * MiB,
            Weight = random.Next(1, 10_000),
            BalloonTarget = random.Next(3) == 0 ? 0UL : null,
        };
    }
}
