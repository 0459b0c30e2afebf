using Spectre.Console;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Nouns;

/// <summary>A progress bar on standard error. Apart from its users, so that Spectre.Console is loaded only where one is shown.</summary>
internal static class ProgressBar
{
    internal static async Task<JobInfo> ShowAsync(string title, Func<Action<JobInfo>, Task<JobInfo>> work)
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
        return await console.Progress()
            .AutoClear(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new ElapsedTimeColumn())
            .StartAsync(async context =>
            {
                ProgressTask bar = context.AddTask(Markup.Escape(title), maxValue: 1);
                return await work(job =>
                {
                    bar.Description = Markup.Escape($"{job.Kind} {job.Target}");
                    bar.Value = job.Progress;
                }).ConfigureAwait(false);
            }).ConfigureAwait(false);
    }
}
