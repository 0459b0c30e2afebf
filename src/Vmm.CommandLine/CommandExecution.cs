using System.CommandLine;

namespace Vmm.CommandLine;

/// <summary>Carries a command line out, or says what is wrong with it.</summary>
internal static class CommandExecution
{
    /// <summary>Parses and executes.</summary>
    /// <param name="root">The commands.</param>
    /// <param name="args">The words behind the program's name.</param>
    /// <param name="fail">Takes each error, without its <c>vmmctl: </c>.</param>
    /// <param name="output">Where results go; null: standard output.</param>
    /// <param name="errors">Where errors of the commands go; null: standard error.</param>
    /// <returns>The exit code.</returns>
    internal static int Execute(RootCommand root, string[] args, Action<string> fail, TextWriter? output, TextWriter? errors)
    {
        ParseResult parsed = root.Parse(args);
        if (parsed.Errors.Count > 0)
        {
            foreach (string line in UsageErrors.Of(parsed))
            {
                fail(line);
            }

            return ExitCodes.Usage;
        }

        InvocationConfiguration configuration = new() { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
        if (output is not null)
        {
            configuration.Output = output;
        }

        if (errors is not null)
        {
            configuration.Error = errors;
        }

        return parsed.Invoke(configuration);
    }
}
