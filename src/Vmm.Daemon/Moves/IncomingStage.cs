using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Moves;

/// <summary>Asks a worker that gets a VM how far it is.</summary>
internal static class IncomingStage
{
    private const int LongestProblem = 300;
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(2);

    /// <summary>Nothing speaks against it yet.</summary>
    /// <exception cref="WorkerException">It failed.</exception>
    internal static async Task RequireAliveAsync(IIncomingWorker target, CancellationToken cancellation) =>
        Require(await target.StatusAsync(cancellation).ConfigureAwait(false));

    /// <summary>Waits until everything is there, which the sender has heard already.</summary>
    /// <exception cref="WorkerException">It failed.</exception>
    internal static async Task RequireCompleteAsync(IIncomingWorker target, CancellationToken cancellation)
    {
        while (Require(await target.StatusAsync(cancellation).ConfigureAwait(false)) != ReceiveStage.Complete)
        {
            await Task.Delay(s_interval, cancellation).ConfigureAwait(false);
        }
    }

    private static ReceiveStage Require(ReceiveInfo info) => info.Stage != ReceiveStage.Failed
        ? info.Stage
        : throw new WorkerException(
            "move-failed", $"the worker that gets the VM: {SafeText.Line(info.Problem ?? "it failed", LongestProblem)}");
}
