using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>A worker that gets a VM from another one, by its launch.</summary>
/// <param name="worker">The worker.</param>
/// <param name="complete">The second step of the launch; when it fails nothing is left behind.</param>
/// <param name="undo">Ends the worker, and what the launch has taken.</param>
internal sealed class IncomingWorker(
    RemoteWorker worker, Func<CancellationToken, Task<IWorker>> complete, Func<ValueTask> undo) : IIncomingWorker
{
    private bool _isOver;

    /// <inheritdoc/>
    public Task<ReceiveInfo> StatusAsync(CancellationToken cancellation) => worker.Receives.StatusAsync(cancellation);

    /// <inheritdoc/>
    public Task<IWorker> CompleteAsync(CancellationToken cancellation)
    {
        if (Interlocked.Exchange(ref _isOver, true))
        {
            throw new InvalidOperationException("the VM was completed already, or given up");
        }

        return complete(cancellation);
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Interlocked.Exchange(ref _isOver, true) ? ValueTask.CompletedTask : undo();
}
