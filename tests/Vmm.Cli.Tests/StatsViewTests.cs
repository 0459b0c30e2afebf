using Vmm.Cli.Vms;
using Vmm.Contracts.Control;

namespace Vmm.Cli.Tests;

/// <summary>Lines of <c>vm stats --watch</c>.</summary>
public sealed class StatsViewTests
{
    [Fact]
    public void Rates_are_per_second_whatever_passed_and_stand_below_their_headings()
    {
        WorkerStats before = Stats(1000, 5), now = Stats(3000, 25);
        string line = StatsView.Rates(now, before, TimeSpan.FromSeconds(4));
        Assert.Equal(
            ["50.0", "64", "MiB", "5", "5", "500", "B", "10", "5", "KiB", "15", "B", "20", "B"],
            line.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        Assert.Equal(StatsView.Headings.Length, line.Length);
    }

    [Fact]
    public void A_vm_that_was_started_anew_begins_at_zero() => Assert.Equal(
        ["25.0", "64", "MiB", "3", "3", "300", "B", "6", "3", "KiB", "9", "B", "12", "B"],
        StatsView.Rates(Stats(500, 6), Stats(9000, 900), TimeSpan.FromSeconds(2)).Split(' ', StringSplitOptions.RemoveEmptyEntries));

    private static WorkerStats Stats(long milliseconds, long count) => new(
        milliseconds, 64 << 20, count,
        [
            new DiskStats("disk0", count, count * 100, count * 2, count * 1024, 0, 0),
            new DiskStats("disk1", 0, 0, 0, 0, 0, 0),
        ],
        [new NetStats("net0", 0, count * 3, 0, count * 4, 0)]);
}
