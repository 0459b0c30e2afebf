using Vmm.Storage.Replicas;

namespace Vmm.Storage.Tests.Replicas;

/// <summary>Sets of extents against sets of numbers.</summary>
public sealed class ExtentSetTests
{
    [Fact]
    public void Ranges_in_any_order_become_ordered_ones_that_do_not_touch()
    {
        for (int seed = 0; seed < 300; seed++)
        {
            Random random = new(seed);
            ExtentRange[] one = Random(random), other = Random(random);
            ExtentSet set = ExtentSet.Of(one).With(ExtentSet.Of(other));
            Assert.Equal(
                one.Concat(other).SelectMany(Numbers).Distinct().Order(),
                set.Ranges.SelectMany(Numbers));
            Assert.All(set.Ranges.Zip(set.Ranges.Skip(1)), each => Assert.True(each.First.End < each.Second.First));
        }

        ExtentSet all = ExtentSet.None.With(ExtentSet.All("a test"));
        Assert.Equal((true, "a test"), (all.IsAll, all.With(ExtentSet.None).WhyAll));
        Assert.Equal(ulong.MaxValue, ExtentSet.Of([new ExtentRange(5, ulong.MaxValue)]).Ranges[0].End);
    }

    private static ExtentRange[] Random(Random random) =>
        [.. Enumerable.Range(0, random.Next(6)).Select(_ => new ExtentRange((ulong)random.Next(40), (ulong)random.Next(9)))];

    private static IEnumerable<ulong> Numbers(ExtentRange range) =>
        Enumerable.Range((int)range.First, (int)range.Count).Select(each => (ulong)each);
}
