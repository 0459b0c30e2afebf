using Mono.Unix.Native;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Workers;

/// <summary>What a worker says of its end, bounded: one that was taken over may say anything.</summary>
internal static class WorkerExits
{
    private const int Sigsys = 31, Sigkill = 9;

    /// <summary>
    /// Longest message; longest line of a report; most lines of it. A report of ours has about 40 lines of 200 characters.
    /// </summary>
    internal const int LongestMessage = 4096, LongestLine = 1024, MostLines = 64;

    /// <summary>The same, cut to what is kept, with texts that are fit for terminals and logs, and a reason that exists.</summary>
    internal static WorkerExit Bounded(WorkerExit exit) => exit with
    {
        Reason = Enum.IsDefined(exit.Reason) ? exit.Reason : ExitReason.Failed,
        Message = exit.Message is { } message ? SafeText.Lines(message, LongestMessage) : null,
        Report = exit.Report is { } report
            ? [.. report.Where(line => line is not null).Take(MostLines).Select(line => SafeText.Line(line, LongestLine))]
            : null,
    };

    /// <summary>The end of a VM whose worker left no word about it.</summary>
    /// <param name="end">How its process ended.</param>
    /// <param name="outOfMemory">The kernel killed a process of its control group for its memory limit.</param>
    internal static WorkerExit Of(ProcessEnd end, bool outOfMemory) => new(ExitReason.WorkerDied, 1, end switch
    {
        { Signal: Sigkill } when outOfMemory =>
            "out of memory: the kernel killed the worker process, which had reached the memory limit of its control group",
        { Known: false } => "the worker process is gone without a word",
        { Signal: Sigsys } => "the worker process was killed by its system call filter (signal 31, SIGSYS): it did what no worker does; "
            + "the kernel's log (audit type 1326) names the call",
        { Signal: not 0 } => "the worker process was killed by signal "
            + $"{end.Signal}{(NativeConvert.TryToSignum(end.Signal, out Signum name) ? $" ({name})" : "")}",
        _ => $"the worker process exited with status {end.ExitCode} without a word",
    });
}
