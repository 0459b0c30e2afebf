using System.CommandLine;

namespace Vmm.CommandLine.Seeds;

/// <summary>The options for the first start of a guest with cloud-init.</summary>
internal sealed class SeedOptions
{
    private readonly Option<string?> _userData =
        new("--user-data") { Description = "cloud-init: file of user-data, given to the guest as it is", HelpName = "file" };

    private readonly Option<string?> _network =
        new("--network-config") { Description = "cloud-init: file of network-config", HelpName = "file" };

    private readonly Option<string[]> _keys =
        new("--ssh-key") { Description = "cloud-init: file of public keys that may log in; repeatable", HelpName = "file" };

    private readonly Option<string?> _hostname =
        new("--hostname") { Description = "cloud-init: name of the guest [default: that of the VM]", HelpName = "name" };

    private readonly Option<bool> _password = new("--password") { Description = "cloud-init: ask for a password; the guest gets its hash" };

    /// <summary>In the order in which the help lists them.</summary>
    internal IReadOnlyList<Option> All => [_userData, _network, _keys, _hostname, _password];

    /// <summary>What a command line gives them.</summary>
    internal SeedWish Read(ParseResult parsed) => new()
    {
        UserData = parsed.GetValue(_userData),
        NetworkConfig = parsed.GetValue(_network),
        SshKeys = parsed.GetValue(_keys) ?? [],
        Hostname = parsed.GetValue(_hostname),
        Password = parsed.GetValue(_password),
    };
}
