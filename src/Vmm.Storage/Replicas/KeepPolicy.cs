namespace Vmm.Storage.Replicas;

/// <summary>Which points go, by their times. The newest one always stays.</summary>
public static class KeepPolicy
{
    /// <summary>Most points that stay: leaves room for some that come while points that are in use have to stay.</summary>
    public const int MostKept = 160;

    /// <summary>
    /// Tells which points go. Hours and days are those of UTC, counted back from the one of the newest point. When the rules want more
    /// than may stay, points that only the first rule wants are thinned evenly: the newest one of each of some equal parts of its time
    /// stays.
    /// </summary>
    /// <param name="points">The points, the oldest first.</param>
    /// <param name="rules">The rules.</param>
    /// <param name="now">The time.</param>
    /// <param name="most">Most points that stay.</param>
    /// <returns>The points that go, the oldest first.</returns>
    public static IReadOnlyList<Guid> Drop(
        IReadOnlyList<ArrangedPoint> points, KeepRules rules, DateTimeOffset now, int most = MostKept)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(most, 1);
        if (points.Count == 0)
        {
            return [];
        }

        HashSet<int> kept = [points.Count - 1];
        AddNewestOfEach(points, TimeSpan.FromHours(1), rules.Hourly, kept);
        AddNewestOfEach(points, TimeSpan.FromDays(1), rules.Daily, kept);
        if (kept.Count > most)
        {
            kept = [.. kept.OrderDescending().Take(most)];
        }

        int[] recent = [.. Enumerable.Range(0, points.Count).Where(i => now - points[i].Point.Time <= rules.All && !kept.Contains(i))];
        kept.UnionWith(Thin(points, recent, most - kept.Count, rules.All));
        return [.. points.Where((_, i) => !kept.Contains(i)).Select(point => point.Point.Id)];
    }

    private static void AddNewestOfEach(IReadOnlyList<ArrangedPoint> points, TimeSpan length, int count, HashSet<int> kept)
    {
        long last = PartOf(points[^1], length.Ticks), before = long.MaxValue;
        for (int i = points.Count - 1; i >= 0; i--)
        {
            long part = PartOf(points[i], length.Ticks);
            if (last - part >= count)
            {
                return;
            }

            if (part < before)
            {
                _ = kept.Add(i);
                before = part;
            }
        }
    }

    private static IEnumerable<int> Thin(IReadOnlyList<ArrangedPoint> points, int[] recent, int room, TimeSpan time)
    {
        if (recent.Length <= room)
        {
            return recent;
        }

        if (room <= 1)
        {
            return [];
        }

        // Parts of fixed times, so that the next call keeps the same ones; one more than fits may be begun.
        long part = (time.Ticks / (room - 1)) + 1;
        return recent.GroupBy(i => PartOf(points[i], part)).Select(group => group.Max()).OrderDescending().Take(room);
    }

    private static long PartOf(ArrangedPoint point, long length) => point.Point.Time.UtcTicks / length;
}
