using System.Diagnostics;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Moves;

/// <summary>
/// The way of a VM's memory out of the worker that has it: while the VM runs, and then the rest. What the worker says of it is for people,
/// and for when to stop the VM; it may say anything.
/// </summary>
/// <param name="vm">Name of the VM.</param>
/// <param name="source">The worker's moves.</param>
/// <param name="wish">How.</param>
/// <param name="report">Hears how far it is.</param>
internal sealed class PreCopy(string vm, IWorkerMoves source, MoveWish wish, Action<MoveProgress> report)
{
    private const int FirstLook = 5, LastLook = 250, LongestProblem = 300;

    private readonly Stopwatch _time = Stopwatch.StartNew();

    /// <summary>Waits until what is left fits into the downtime, or the VM is to be stopped all the same.</summary>
    /// <param name="checkTarget">Throws when nothing will come of it at the other end.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It took too long.</exception>
    /// <exception cref="WorkerException">It failed.</exception>
    internal async Task ConvergeAsync(Func<CancellationToken, Task> checkTarget, CancellationToken cancellation)
    {
        for (int delay = FirstLook; ; delay = Math.Min(delay * 2, LastLook))
        {
            MoveInfo info = await source.StatusAsync(cancellation).ConfigureAwait(false);
            report(Progress(info));
            switch (info.Stage)
            {
                case MoveStage.Converged:
                    return;
                case MoveStage.Copying:
                    break;
                default:
                    throw Failed(info);
            }

            await checkTarget(cancellation).ConfigureAwait(false);
            if (_time.Elapsed >= wish.Timeout)
            {
                if (wish.Force)
                {
                    return;
                }

                throw TooSlow(info);
            }

            await Task.Delay(delay, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Stops the VM, and sends what is left.</summary>
    /// <exception cref="WorkerException">It failed: the VM is as it was before.</exception>
    internal async Task<MoveProgress> StopAsync(CancellationToken cancellation)
    {
        MoveInfo info = await source.StopAsync(wish.LongestStop, cancellation).ConfigureAwait(false);
        MoveProgress last = Progress(info);
        report(last);
        return info.Stage == MoveStage.HandedOver ? last : throw Failed(info);
    }

    /// <summary>What a worker says, with numbers that can be written.</summary>
    internal static MoveProgress Progress(MoveInfo info) => new(
        info.Stage switch
        {
            MoveStage.Copying => "copying",
            MoveStage.Converged => "stopping",
            MoveStage.HandedOver => "handed-over",
            _ => "failed",
        },
        info.Round, info.TotalBytes, info.LeftBytes, info.SentBytes, info.BytesPerSecond, info.DirtyBytesPerSecond,
        Math.Clamp(info.ThrottlePercent, 0, 100),
        double.IsFinite(info.DowntimeMilliseconds) ? Math.Max(0, info.DowntimeMilliseconds) : 0);

    private ApiException TooSlow(MoveInfo info) => new(
        504, "move-timeout", "the VM could not be moved in time",
        $"{vm}: after {wish.Timeout.TotalSeconds:0} s {info.LeftBytes >> 20} MiB are left to be sent: it writes "
            + $"{info.DirtyBytesPerSecond >> 20} MiB a second anew, and {info.BytesPerSecond >> 20} MiB a second are sent, so it would "
            + $"stand still for {Progress(info).DowntimeMilliseconds:0} ms, not {wish.Downtime.TotalMilliseconds:0}: it runs on here; "
            + "allow more downtime or time");

    private static WorkerException Failed(MoveInfo info) => new(
        "move-failed", info.Problem is { } problem ? SafeText.Line(problem, LongestProblem) : $"the worker's move is {info.Stage}");
}
