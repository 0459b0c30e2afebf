using FsCheck;
using FsCheck.Fluent;
using Vmm.Machine.Run;

namespace Vmm.Machine.Tests.Run;

public sealed class ShrinkPaceTests
{
    private const ulong MiB = 1 << 20, Block = 2 * MiB;

    [Fact]
    public void A_guest_that_gives_no_account_is_asked_for_everything_at_once()
    {
        ShrinkPace pace = new();
        Assert.Equal(
            0UL, pace.Begin(0, forced: false, new ShrinkSample(512 * MiB, 512 * MiB, Block, null, 0, TimeSpan.MinValue), TimeSpan.Zero));
    }

    [Fact]
    public void Growing_is_asked_for_at_once() =>
        Assert.Equal(
            512 * MiB,
            new ShrinkPace().Begin(512 * MiB, forced: false, new ShrinkSample(0, 0, Block, 0, 256 * MiB, TimeSpan.Zero), Seconds(1)));

    [Fact]
    public void Force_asks_for_everything_whatever_is_left() =>
        Assert.Equal(0UL, new ShrinkPace().Begin(
            0, forced: true, new ShrinkSample(512 * MiB, 512 * MiB, Block, 0, 1024 * MiB, TimeSpan.Zero), Seconds(1)));

    [Fact]
    public void Only_new_words_of_the_guest_count()
    {
        ShrinkPace pace = new();
        ShrinkSample old = new(512 * MiB, 512 * MiB, Block, 800 * MiB, 1024 * MiB, Seconds(1));
        Assert.Equal(512 * MiB, pace.Begin(0, forced: false, old, Seconds(10)));
        Assert.Equal(512 * MiB, pace.Next(old, Seconds(11)));
        Assert.Equal(0UL, pace.Next(old with { SaidAt = Seconds(11.5) }, Seconds(12)));
    }

    [Fact]
    public void A_reserve_is_left_and_the_rest_asked_for_when_there_is_more()
    {
        ShrinkPace pace = new();
        ShrinkSample holds = new(512 * MiB, 512 * MiB, Block, 256 * MiB, 1024 * MiB, Seconds(1));
        pace.Begin(0, forced: false, holds, Seconds(1));
        ulong asked = pace.Next(holds with { SaidAt = Seconds(2) }, Seconds(2));
        Assert.Equal((512 - 192) * MiB, asked); // 256 MiB less the reserve of 64
        ShrinkSample gave = holds with { Plugged = asked, Requested = asked, Available = 65 * MiB, Total = 832 * MiB };
        Assert.Equal(asked, pace.Next(gave with { SaidAt = Seconds(3) }, Seconds(3)));
        Assert.Equal(asked, pace.Next(gave with { SaidAt = Seconds(4) }, Seconds(4)));
        Assert.Equal(0UL, pace.Next(gave with { Available = 600 * MiB, SaidAt = Seconds(5) }, Seconds(5)));
    }

    [Fact]
    public void A_guest_in_need_is_left_alone_longer_each_time()
    {
        ShrinkPace pace = new();
        ShrinkSample plenty = new(512 * MiB, 512 * MiB, Block, 700 * MiB, 1024 * MiB, Seconds(0));
        TimeSpan now = Seconds(1), rest = ShrinkPace.FirstRest;
        pace.Begin(0, forced: false, plenty, now);
        for (int i = 0; i < 8; i++)
        {
            now += Seconds(1);
            ulong asked = pace.Next(plenty with { SaidAt = now }, now);
            Assert.Equal(0UL, asked);
            now += Seconds(1);
            // the wish is off
            Assert.Equal(512 * MiB, pace.Next(plenty with { Requested = asked, Available = 10 * MiB, SaidAt = now }, now));
            pace.Next(plenty with { SaidAt = now }, now);
            Assert.Equal(512 * MiB, pace.Next(plenty with { SaidAt = now + rest - Seconds(0.1) }, now + rest - Seconds(0.1)));
            now += rest;
            rest = rest * 2 < ShrinkPace.LongestRest ? rest * 2 : ShrinkPace.LongestRest;
        }
    }

    [Fact]
    public void A_guest_that_neither_speaks_nor_gives_is_no_longer_asked()
    {
        ShrinkPace pace = new();
        ShrinkSample works = new(512 * MiB, 512 * MiB, Block, 700 * MiB, 1024 * MiB, Seconds(2));
        pace.Begin(0, forced: false, works with { SaidAt = Seconds(0) }, Seconds(1));
        ulong asked = pace.Next(works, Seconds(2));
        Assert.Equal(0UL, asked);
        works = works with { Requested = asked };
        Assert.Equal(asked, pace.Next(works, Seconds(31)));
        Assert.Equal(asked, pace.Next(works with { Plugged = 510 * MiB }, Seconds(31.5))); // it gives
        Assert.Equal(asked, pace.Next(works with { Plugged = 510 * MiB }, Seconds(61)));
        Assert.Equal(510 * MiB, pace.Next(works with { Plugged = 510 * MiB }, Seconds(61.5)));
    }

    [Fact]
    public void What_other_devices_were_asked_for_is_not_counted_on() =>
        Assert.Equal(
            512 * MiB - (136 * MiB),
            Second(new ShrinkSample(512 * MiB, 512 * MiB, Block, 400 * MiB, 1024 * MiB, Seconds(2), Promised: 200 * MiB)));

    /// <summary>
    /// A guest with so much in use, whose use changes: it is never asked for more than leaves it the reserve, and gets there when it can.
    /// </summary>
    [Fact]
    public void Whatever_the_guest_does_it_is_never_asked_to_go_below_its_reserve() =>
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(300), Prop.ForAll<int>(seed =>
        {
            Random random = new(seed);
            ulong used = (ulong)random.Next(1201), wanted = (ulong)random.Next(513), later = (ulong)random.Next(601);
            (int speed, bool early) = (random.Next(1, 65), random.Next(2) == 0);
            ShrinkPace pace = new();
            ulong plugged = 1024 * MiB, requested = plugged, boot = 512 * MiB;
            (wanted, used, later) = (wanted * MiB / Block * Block, used * MiB, later * MiB);
            TimeSpan now = Seconds(1), said = Seconds(0);
            ulong Available() => boot + plugged > used ? boot + plugged - used : 0;
            for (int tick = 0; tick < 3000; tick++)
            {
                ShrinkSample sample = new(plugged, requested, Block, Available(), boot + plugged, said);
                ulong next = tick == 0 ? pace.Begin(wanted, forced: false, sample, now) : pace.Next(sample, now);
                Assert.True(next >= wanted && next % Block == 0);
                if (next < requested)
                {
                    Assert.True(Available() - (plugged - next) >= ShrinkPace.Reserve(boot + plugged),
                        $"asked for {next} with {Available()} available");
                }

                requested = next;
                plugged = plugged > requested ? Math.Max(requested, plugged - Math.Min(plugged, (ulong)speed * Block))
                    : requested > plugged && early ? requested
                    : plugged;
                now += Seconds(0.5);
                said = now - Seconds(0.1);
                used = tick == 1500 ? later : used;
            }

            ulong least = later + ShrinkPace.Reserve(boot + plugged) > boot
                ? (later + ShrinkPace.Reserve(boot + plugged) - boot + Block - 1) / Block * Block
                : 0;
            Assert.InRange(plugged, wanted, Math.Max(wanted, least));
        }));

    private static ulong Second(ShrinkSample sample)
    {
        ShrinkPace pace = new();
        pace.Begin(0, forced: false, sample with { SaidAt = Seconds(0) }, Seconds(1));
        return pace.Next(sample, Seconds(2));
    }

    private static TimeSpan Seconds(double seconds) => TimeSpan.FromSeconds(seconds);
}
