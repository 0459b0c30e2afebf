using System.CommandLine;
using System.Globalization;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Remote;

/// <summary><c>--wait [SECONDS]</c>: come back when what was asked for has happened, or fail when it has not by then.</summary>
internal static class WaitOption
{
    private const string Forever = "forever";

    internal static Option<string?> Create(string what) => new("--wait")
    {
        Description = $"Come back when {what}; fail when that takes longer than SECONDS",
        HelpName = "seconds",
        Arity = ArgumentArity.ZeroOrOne,
    };

    /// <summary>A word behind <c>--wait</c> that is not a number is not its value: <c>vm stop --wait web1</c>.</summary>
    internal static string[] Separate(string[] args)
    {
        int at = Array.IndexOf(args, "--wait");
        if (at < 0 || (at + 1 < args.Length && args[at + 1].Length > 0 && args[at + 1].AsSpan().IndexOfAnyExceptInRange('0', '9') < 0))
        {
            return args;
        }

        string[] separate = [.. args];
        separate[at] = "--wait=" + Forever;
        return separate;
    }

    /// <summary>Null: do not wait; else how long, at most.</summary>
    /// <exception cref="UsageException">Not a number of seconds.</exception>
    internal static TimeSpan? Read(ParseResult parsed, Option<string?> option)
    {
        if (parsed.GetResult(option) is null)
        {
            return null;
        }

        string text = parsed.GetValue(option) ?? Forever;
        return string.Equals(text, Forever, StringComparison.Ordinal) ? Timeout.InfiniteTimeSpan
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int seconds) && seconds <= 1_000_000
                ? TimeSpan.FromSeconds(seconds)
            : throw new UsageException($"--wait {text}: expected a number of seconds");
    }

    /// <summary>Asks for a VM again and again until it is as wanted.</summary>
    /// <returns>The VM; null when time ran out.</returns>
    internal static async Task<VmInfo?> ForVmAsync(
        VmmClient client, string name, Func<VmInfo, bool> done, TimeSpan limit, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(limit);
        try
        {
            while (true)
            {
                VmInfo vm = await client.ShowAsync(name, deadline.Token).ConfigureAwait(false);
                if (done(vm))
                {
                    return vm;
                }

                await Task.Delay(200, deadline.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return null;
        }
    }
}
