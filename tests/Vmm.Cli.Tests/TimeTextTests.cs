using Vmm.Cli.Remote;

namespace Vmm.Cli.Tests;

public sealed class TimeTextTests
{
    [Theory]
    [InlineData("50ms", 50)]
    [InlineData("1s", 1000)]
    [InlineData("30s", 30_000)]
    [InlineData("10m", 600_000)]
    [InlineData("2h", 7_200_000)]
    public void A_number_with_its_unit_is_a_time(string text, int milliseconds) =>
        Assert.Equal(TimeSpan.FromMilliseconds(milliseconds), TimeText.Read("--timeout", text, TimeSpan.FromHours(2)));

    [Theory]
    [InlineData("")]
    [InlineData("5")]
    [InlineData("ms")]
    [InlineData("0s")]
    [InlineData("-1s")]
    [InlineData("1.5s")]
    [InlineData("5 s")]
    [InlineData("5mss")]
    [InlineData("5sm")]
    [InlineData("121m")]
    [InlineData("99999999999999999999s")]
    [InlineData("9223372036854775807h")]
    public void Anything_else_is_refused_with_the_option_and_the_most(string text)
    {
        UsageException refused = Assert.Throws<UsageException>(() => TimeText.Read("--timeout", text, TimeSpan.FromHours(2)));
        Assert.StartsWith($"--timeout {text}: expected a time", refused.Message, StringComparison.Ordinal);
        Assert.EndsWith("at most 2h", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void None_is_none() => Assert.Null(TimeText.Read("--timeout", null, TimeSpan.FromHours(2)));
}
