using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Tests;

public sealed class ResidencyReportTests
{
    [Fact]
    public void Who_asks_in_a_loop_costs_a_tenth_of_the_time_however_long_a_report_takes()
    {
        FakeTime time = new();
        int reads = 0;
        ResidencyReport report = new(
            () =>
            {
                time.Advance(TimeSpan.FromSeconds(2));
                return $"7f0000000000 default file=/memfd:vmm:vnode0 dirty={++reads} N0={reads} kernelpagesize_kB=4\n";
            },
            time);
        for (int second = 0; second < 180; second++)
        {
            ulong bytes = report.Read()![0][0];
            Assert.Equal((ulong)reads * 4096, bytes);
            time.Advance(TimeSpan.FromSeconds(1));
        }

        Assert.Equal(10, reads);
    }

    [Fact]
    public void A_failure_is_kept_as_long_as_a_report()
    {
        FakeTime time = new();
        int reads = 0;
        ResidencyReport report = new(
            () =>
            {
                time.Advance(TimeSpan.FromSeconds(1));
                throw new IOException($"{++reads}");
            },
            time);
        Assert.Null(report.Read());
        Assert.Null(report.Read());
        Assert.Equal(1, reads);
        time.Advance(TimeSpan.FromSeconds(ResidencyReport.Rest));
        Assert.Null(report.Read());
        Assert.Equal(2, reads);
    }
}
