using Vmm.Storage.Replicas;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>Which points stay.</summary>
public sealed class KeepPolicyTests
{
    private static readonly KeepRules s_rules = new(TimeSpan.FromHours(1), 24, 7);

    public static TheoryData<int> Seeds() => [.. Enumerable.Range(1, 40)];

    /// <summary>Points come at any times, and the policy is asked again and again, as vmmd does.</summary>
    [Theory]
    [MemberData(nameof(Seeds))]
    public void What_a_rule_wants_stays_and_nothing_else(int seed)
    {
        Random random = new(seed);
        KeepRules rules = new(TimeSpan.FromMinutes(random.Next(0, 300)), random.Next(0, 30), random.Next(0, 10));
        DateTimeOffset now = new(2026, 12, 1, 0, 0, 0, TimeSpan.Zero);
        List<ArrangedPoint> points = [], all = [];
        for (int i = 0; i < 400; i++)
        {
            now += TimeSpan.FromSeconds(random.Next(1, random.Next(20) == 0 ? 100_000 : 1_000));
            points.Add(PointAt(now, i + 1));
            all.Add(points[^1]);
            if (random.Next(3) != 0)
            {
                continue;
            }

            HashSet<Guid> gone = [.. KeepPolicy.Drop(points, rules, now, most: 1000)];
            points.RemoveAll(point => gone.Contains(point.Point.Id));
            HashSet<Guid> wanted = [.. all.Where(point => IsWanted(point, all, rules, now)).Select(point => point.Point.Id)];
            Assert.Subset(points.Select(point => point.Point.Id).ToHashSet(), wanted);
            Assert.All(points, point => Assert.True(IsWanted(point, points, rules, now)));
            Assert.Empty(KeepPolicy.Drop(points, rules, now, most: 1000));
        }
    }

    [Theory]
    [InlineData(5)]
    [InlineData(30)]
    [InlineData(60)]
    public void No_more_than_may_stay_do_and_those_of_the_first_rule_are_spread(int seconds)
    {
        List<ArrangedPoint> points = [];
        DateTimeOffset begin = new(2026, 12, 1, 0, 0, 0, TimeSpan.Zero), now = begin;
        for (int i = 0; i < 30 * 3600 / seconds; i++)
        {
            now += TimeSpan.FromSeconds(seconds);
            points.Add(PointAt(now, i + 1));
            HashSet<Guid> gone = [.. KeepPolicy.Drop(points, s_rules, now, most: 100)];
            Assert.DoesNotContain(points[^1].Point.Id, gone);
            points.RemoveAll(point => gone.Contains(point.Point.Id));
            Assert.InRange(points.Count, 1, 100);
        }

        DateTimeOffset[] times = [.. points.Select(point => point.Point.Time)];
        Assert.InRange(times.Count(time => now - time <= s_rules.All), Math.Min(50, 3600 / seconds), 100);
        Assert.All(
            times.SkipWhile(time => now - time > s_rules.All).Zip(times.SkipWhile(time => now - time > s_rules.All).Skip(1)),
            each => Assert.InRange((each.Second - each.First).TotalSeconds, 0, Math.Max(seconds, 2 * 3600 / 65)));
        Assert.InRange(times.Count(time => now - time > s_rules.All), 21, 26);
    }

    [Fact]
    public void Few_points_and_none_are_no_trouble()
    {
        Assert.Empty(KeepPolicy.Drop([], s_rules, DateTimeOffset.UnixEpoch));
        ArrangedPoint old = PointAt(DateTimeOffset.UnixEpoch, 1), newest = PointAt(DateTimeOffset.UnixEpoch.AddMinutes(1), 2);
        KeepRules none = new(TimeSpan.Zero, 0, 0);
        DateTimeOffset now = DateTimeOffset.UnixEpoch.AddYears(1);
        Assert.Equal([old.Point.Id], KeepPolicy.Drop([old, newest], none, now));
        Assert.Empty(KeepPolicy.Drop([newest], none, now));
        Assert.Equal([old.Point.Id], KeepPolicy.Drop([old, newest], s_rules, now, most: 1));
    }

    private static bool IsWanted(ArrangedPoint point, List<ArrangedPoint> points, KeepRules rules, DateTimeOffset now) =>
        point == points[^1] || now - point.Point.Time <= rules.All
            || IsNewestOf(point, points, TimeSpan.FromHours(1), rules.Hourly)
            || IsNewestOf(point, points, TimeSpan.FromDays(1), rules.Daily);

    private static bool IsNewestOf(ArrangedPoint point, List<ArrangedPoint> points, TimeSpan length, int count)
    {
        long part = Part(point), last = Part(points[^1]);
        return last - part < count && points.Last(each => Part(each) == part) == point;

        long Part(ArrangedPoint each) => each.Point.Time.UtcTicks / length.Ticks;
    }

    private static ArrangedPoint PointAt(DateTimeOffset time, int number) =>
        new(number, new SealedPoint { Id = Guid.NewGuid(), Owner = Guid.NewGuid(), Time = time, Disks = [] });
}
