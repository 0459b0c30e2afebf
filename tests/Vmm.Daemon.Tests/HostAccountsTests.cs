using System.Diagnostics;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Tests;

public sealed class HostAccountsTests
{
    [Fact]
    public void Groups_are_those_of_the_name_service()
    {
        string[] root = Ask("getent", "group", "root").Split(':'), daemon = Ask("getent", "group", "daemon").Split(':');
        Assert.Equal(root[2], HostAccounts.FindGroup("root")!.Value.ToString(System.Globalization.CultureInfo.InvariantCulture));
        Assert.Equal(daemon[2], HostAccounts.FindGroup("daemon")!.Value.ToString(System.Globalization.CultureInfo.InvariantCulture));
        Assert.Equal(Ask("id", "-u").Trim(), HostAccounts.OwnUser.ToString(System.Globalization.CultureInfo.InvariantCulture));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("no-such-group")]
    public void What_is_no_group_has_no_number(string? name) => Assert.Null(HostAccounts.FindGroup(name));

    private static string Ask(string program, params string[] arguments)
    {
        using Process process =
            Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, UseShellExecute = false })!;
        return process.StandardOutput.ReadToEnd();
    }
}
