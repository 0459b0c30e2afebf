using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli;

/// <summary>The options of every command that asks a daemon: which one, who asks, and in which form the answer is printed.</summary>
internal sealed class GlobalOptions
{
    /// <summary>The environment variables that stand in for options, and those that commands use.</summary>
    internal static readonly (string Name, string Help)[] Environment =
    [
        ("VMM_HOST", "The daemon to ask when there is no --host"),
        ("VMM_TOKEN_FILE", "The token's file when there is no --token-file"),
        ("EDITOR", "What vmmctl vm edit starts; vi when it is not set"),
    ];

    private readonly Option<string?> _host = new("--host")
    {
        Description = $"The daemon to ask: unix:///PATH or https://NAME:PORT [default: $VMM_HOST, else unix://{VmmClient.DefaultSocket}]",
        HelpName = "url",
        Recursive = true
    };
    private readonly Option<string?> _tokenFile = new("--token-file")
    {
        Description = "File with the access token; for https [default: $VMM_TOKEN_FILE]",
        HelpName = "path",
        Recursive = true
    };
    private readonly Option<string?> _certificate =
        new("--certificate") { Description = "Client certificate (PEM); for https", HelpName = "path", Recursive = true };
    private readonly Option<string?> _key =
        new("--key") { Description = "Its private key (PEM), when it is not in the same file", HelpName = "path", Recursive = true };
    private readonly Option<string?> _authority = new("--ca")
    {
        Description = "Certificate (PEM) of the authority that the daemon's certificate must come from [default: the system's]",
        HelpName = "path",
        Recursive = true
    };
    private readonly Option<string> _output =
        new("--output", "-o") { Description = "table or json", DefaultValueFactory = _ => "table", HelpName = "format", Recursive = true };

    internal GlobalOptions() => _output.AcceptOnlyFromAmong("table", "json");

    private Option[] All => [_host, _tokenFile, _certificate, _key, _authority, _output];

    internal void AddTo(RootCommand root)
    {
        foreach (Option option in All)
        {
            root.Options.Add(option);
        }
    }

    /// <summary>Makes a command that asks no daemon say so when it is given one of these options, instead of passing over it.</summary>
    internal void RefuseOn(Command command)
    {
        command.Validators.Add(result =>
        {
            foreach (Option option in All)
            {
                if (result.GetResult(option) is { Implicit: false })
                {
                    result.AddError($"{option.Name} does not go with 'vmmctl {command.Name}', which asks no daemon: leave it out");
                }
            }
        });
    }

    internal bool IsJson(ParseResult parsed) => string.Equals(parsed.GetValue(_output), "json", StringComparison.Ordinal);

    /// <summary>True when a daemon was named, by option or environment: then nothing else will do.</summary>
    internal bool NamesDaemon(ParseResult parsed) => Host(parsed) is not null;

    /// <summary>Whom to ask and as whom.</summary>
    internal DaemonAddress Address(ParseResult parsed) => new(
        Host(parsed) ?? "unix://" + VmmClient.DefaultSocket,
        parsed.GetValue(_tokenFile) ?? Variable("VMM_TOKEN_FILE"),
        parsed.GetValue(_certificate),
        parsed.GetValue(_key),
        parsed.GetValue(_authority));

    private string? Host(ParseResult parsed) => parsed.GetValue(_host) ?? Variable("VMM_HOST");

    private static string? Variable(string name) => System.Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;
}
