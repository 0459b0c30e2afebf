namespace Vmm.Storage.Replicas;

/// <summary>
/// Which extents of a disk may differ from a point: some, or all with the reason why that is not known better. One that is in the set and
/// does not differ costs a read; one that differs and is not in the set would be lost.
/// </summary>
public sealed class ExtentSet
{
    private ExtentSet(IReadOnlyList<ExtentRange> ranges, string? why) => (Ranges, WhyAll) = (ranges, why);

    /// <summary>A set without extents: nothing was written.</summary>
    public static ExtentSet None { get; } = new([], null);

    /// <summary>Why all may differ; null when <see cref="Ranges"/> tells.</summary>
    public string? WhyAll { get; }

    /// <summary>True when all may differ.</summary>
    public bool IsAll => WhyAll is not null;

    /// <summary>The ranges, in the order of the disk; none touches the next. None when all may differ.</summary>
    public IReadOnlyList<ExtentRange> Ranges { get; }

    /// <summary>All may differ.</summary>
    /// <param name="why">Why that is not known better, for people.</param>
    public static ExtentSet All(string why)
    {
        ArgumentException.ThrowIfNullOrEmpty(why);
        return new ExtentSet([], why);
    }

    /// <summary>These may differ.</summary>
    /// <param name="ranges">In any order; they may overlap.</param>
    public static ExtentSet Of(IEnumerable<ExtentRange> ranges)
    {
        List<ExtentRange> made = [];
        foreach (ExtentRange range in ranges.Where(range => range.Count > 0).OrderBy(range => range.First))
        {
            ulong end = range.First > ulong.MaxValue - range.Count ? ulong.MaxValue : range.End;
            if (made.Count > 0 && made[^1].End >= range.First)
            {
                made[^1] = made[^1] with { Count = Math.Max(made[^1].End, end) - made[^1].First };
            }
            else
            {
                made.Add(new ExtentRange(range.First, end - range.First));
            }
        }

        return new ExtentSet(made, null);
    }

    /// <summary>What is in this set or in another one.</summary>
    public ExtentSet With(ExtentSet other) => IsAll ? this : other.IsAll ? other : Of([.. Ranges, .. other.Ranges]);
}
