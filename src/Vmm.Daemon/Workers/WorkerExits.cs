using Vmm.Contracts;
using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>What a worker says of its end, bounded: one that was taken over may say anything.</summary>
internal static class WorkerExits
{
    /// <summary>Longest message; longest line of a report; most lines of it. A report of ours has about 40 lines of 200 characters.</summary>
    internal const int LongestMessage = 4096, LongestLine = 1024, MostLines = 64;

    /// <summary>The same, cut to what is kept, with texts that are fit for terminals and logs, and a reason that exists.</summary>
    internal static WorkerExit Bounded(WorkerExit exit) => exit with
    {
        Reason = Enum.IsDefined(exit.Reason) ? exit.Reason : WorkerExitReason.Failed,
        Message = exit.Message is { } message ? SafeText.Lines(message, LongestMessage) : null,
        Report = exit.Report is { } report
            ? [.. report.Where(line => line is not null).Take(MostLines).Select(line => SafeText.Line(line, LongestLine))]
            : null,
    };
}
