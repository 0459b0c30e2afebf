using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>What a worker says of its end, bounded: one that was taken over may say anything.</summary>
internal static class WorkerExits
{
    private const int Sigsys = 31;

    /// <summary>Longest message; longest line of a report; most lines of it. A report of ours has about 40 lines of 200 characters.</summary>
    internal const int LongestMessage = 4096, LongestLine = 1024, MostLines = 64;

    /// <summary>The same, cut to what is kept, without control characters in its report.</summary>
    internal static WorkerExit Bounded(WorkerExit exit) => exit with
    {
        Message = exit.Message is { Length: > LongestMessage } message ? message[..LongestMessage] : exit.Message,
        Report = exit.Report is { } report ? [.. report.Where(line => line is not null).Take(MostLines).Select(Line)] : null,
    };

    /// <summary>The end of a VM whose worker left no word about it.</summary>
    internal static WorkerExit Of(ProcessEnd end) => new(WorkerExitReason.WorkerDied, 1, end switch
    {
        { Known: false } => "the worker process is gone without a word",
        { Signal: Sigsys } => "the worker process was killed by its system call filter (signal 31, SIGSYS): it did what no worker does; the kernel's log (audit type 1326) names the call",
        { Signal: not 0 } => $"the worker process was killed by signal {end.Signal}",
        _ => $"the worker process exited with status {end.ExitCode} without a word",
    });

    private static string Line(string line)
    {
        ReadOnlySpan<char> kept = line.AsSpan(0, Math.Min(line.Length, LongestLine));
        return string.Create(kept.Length, kept, (to, from) =>
        {
            for (int i = 0; i < from.Length; i++)
            {
                to[i] = char.IsControl(from[i]) ? ' ' : from[i];
            }
        });
    }
}
