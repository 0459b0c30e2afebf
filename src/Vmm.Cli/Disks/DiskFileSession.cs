using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Cli.Disks;

/// <summary>Runs an offline tool beside the command line's thread: Ctrl-C ends it, a person at a terminal sees how far it is.</summary>
internal static class DiskFileSession
{
    /// <summary>Runs it; an error is one line and exit code 1.</summary>
    internal static async Task<int> RunAsync(
        DaemonSession session, string title, Func<ToolProgress, int> tool, CancellationToken cancellation)
    {
        try
        {
            bool isWatched = !session.IsJson && ReferenceEquals(session.Errors, Console.Error) && !Console.IsErrorRedirected;
            return isWatched
                ? await ProgressBar.ShowAsync(title, report => Run(tool, report, cancellation)).ConfigureAwait(false)
                : await Run(tool, null, cancellation).ConfigureAwait(false);
        }
        catch (BlockException e)
        {
            session.Fail(e.Message);
            return ExitCodes.Failed;
        }
    }

    private static Task<int> Run(Func<ToolProgress, int> tool, Action<double>? report, CancellationToken cancellation) =>
        Task.Run(() => tool(new ToolProgress(report, cancellation)), cancellation);
}
