using System.CommandLine;
using Vmm.Cli.Remote;

namespace Vmm.Cli.Generate;

/// <summary>The hidden commands that packaging and the completion call.</summary>
internal static class GenerateCommands
{
    /// <summary>A shell that waits for its user's Tab key does not wait longer for names.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);

    internal static Command Generate(RootCommand root)
    {
        Argument<string> folder = new("folder") { HelpName = "dir" };
        Command man = new("man", "Write the manual pages into a folder") { folder };
        man.SetAction(parsed =>
        {
            foreach (string file in ManPages.Write(root, parsed.GetValue(folder)!))
            {
                parsed.InvocationConfiguration.Output.WriteLine(file);
            }

            return ExitCodes.Done;
        });
        Argument<string> shell = new("shell");
        shell.AcceptOnlyFromAmong("bash");
        Command completion = new("completion", "Print the completion for a shell") { shell };
        completion.SetAction(parsed =>
        {
            parsed.InvocationConfiguration.Output.Write(BashCompletion.Write(root));
            return ExitCodes.Done;
        });
        return new Command("generate", "Manual pages and shell completion") { Hidden = true, Subcommands = { man, completion } };
    }

    /// <summary>
    /// <c>vmmctl complete NOUN</c>: the names of all objects, one a line; nothing at all when the daemon cannot be asked.
    /// </summary>
    internal static Command Complete(GlobalOptions options)
    {
        Argument<string> noun = new("noun");
        Command complete = new("complete", "Names for the shell's completion") { noun };
        complete.Hidden = true;
        complete.SetAction(async (parsed, cancellation) =>
        {
            using DaemonSession session = new(
                options.Address(parsed), isJson: false, parsed.InvocationConfiguration.Output, TextWriter.Null);
            using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(Patience);
            return await session.RunAsync(async s =>
            {
                foreach (string name in await ObjectNames.OfAsync(s.Client, parsed.GetValue(noun)!, limit.Token).ConfigureAwait(false))
                {
                    await s.Out.WriteLineAsync(name).ConfigureAwait(false);
                }

                return ExitCodes.Done;
            }).ConfigureAwait(false);
        });
        return complete;
    }
}
