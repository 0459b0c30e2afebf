using System.CommandLine;

namespace Vmm.Cli.Remote;

/// <summary>Puts the verbs of one noun together: each runs in a <see cref="DaemonSession"/> made of the global options.</summary>
internal sealed class Noun(string name, string help, GlobalOptions options)
{
    internal Command Command { get; } = new(name, help);

    internal GlobalOptions Options => options;

    /// <summary>Adds a verb with its arguments and options.</summary>
    internal Command Add(
        string verb, string verbHelp, Symbol[] symbols, Func<DaemonSession, ParseResult, CancellationToken, Task<int>> action)
    {
        Command command = new(verb, verbHelp);
        foreach (Symbol symbol in symbols)
        {
            if (symbol is Argument argument)
            {
                command.Arguments.Add(argument);
            }
            else
            {
                command.Options.Add((Option)symbol);
            }
        }

        Act(command, options, action);
        Command.Subcommands.Add(command);
        return command;
    }

    /// <summary>Adds a verb whose only word is the name of what it is about.</summary>
    internal Command Add(
        string verb, string verbHelp, Argument<string> name, Func<DaemonSession, string, CancellationToken, Task<int>> action) =>
        Add(verb, verbHelp, [name], (session, parsed, cancellation) => action(session, parsed.GetValue(name)!, cancellation));

    /// <summary>Makes <paramref name="command"/> do <paramref name="action"/>.</summary>
    internal static void Act(
        Command command, GlobalOptions options, Func<DaemonSession, ParseResult, CancellationToken, Task<int>> action) =>
        command.SetAction(async (parsed, cancellation) =>
        {
            using DaemonSession session = new(
                options.Address(parsed),
                options.IsJson(parsed),
                parsed.InvocationConfiguration.Output,
                parsed.InvocationConfiguration.Error);
            return await session.RunAsync(s => action(s, parsed, cancellation)).ConfigureAwait(false);
        });
}
