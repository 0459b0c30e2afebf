using Spectre.Console;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Nouns;

/// <summary>A progress bar on standard error. Apart from its users, so that Spectre.Console is loaded only where one is shown.</summary>
internal static class ProgressBar
{
    /// <summary>Of a job of the daemon.</summary>
    internal static Task<JobInfo> ShowAsync(string title, Func<Action<JobInfo>, Task<JobInfo>> work) =>
        ShowAsync(title, (ProgressTask bar) => work(job =>
        {
            bar.Description = Markup.Escape($"{job.Kind} {job.Target}{(job.Move is { } move ? ": " + MoveText.Of(move) : "")}");
            bar.Value = job.Progress;
        }));

    /// <summary>Of work here, which reports its done part, 0 to 1.</summary>
    internal static Task<int> ShowAsync(string title, Func<Action<double>, Task<int>> work) =>
        ShowAsync(title, (ProgressTask bar) => work(done => bar.Value = done));

    private static async Task<T> ShowAsync<T>(string title, Func<ProgressTask, Task<T>> work)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
        return await console.Progress()
            .AutoClear(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn())
            .StartAsync(async context =>
            {
                ProgressTask bar = context.AddTask(Markup.Escape(title), maxValue: 1);
                return await work(bar).ConfigureAwait(false);
            }).ConfigureAwait(false);
    }
}
