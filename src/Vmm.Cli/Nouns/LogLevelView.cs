using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl host log-level</c>: how much the daemon logs, and changing it.</summary>
internal static class LogLevelView
{
    private static readonly string[] Levels = ["debug", "information", "warning", "error"];

    /// <param name="session">Where to ask.</param>
    /// <param name="level">One of the levels; null only looks.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string? level, CancellationToken cancellation)
    {
        LogSettings settings = level is null ? await session.Client.LogAsync(cancellation).ConfigureAwait(false)
            : Levels.Contains(level, StringComparer.Ordinal) ? await session.Client.SetLogAsync(
                new LogSettings(level), cancellation).ConfigureAwait(false)
            : throw new UsageException($"{level}: expected one of {string.Join(", ", Levels)}");
        return session.Done(settings, RestJson.Default.LogSettings, settings.Level);
    }
}
