using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Moves;

/// <summary>Which of a VM's workers counts, when a daemon that died has left two.</summary>
internal static class WorkerChoice
{
    /// <param name="move">What the inventory says of the move; null: of none.</param>
    /// <param name="workers">All workers of the VM that were found.</param>
    /// <returns>The one that has the VM, null when it is gone; and those that are to be ended.</returns>
    internal static (IWorker? Keep, IReadOnlyList<IWorker> Others) Of(MoveRecord? move, IReadOnlyList<IWorker> workers)
    {
        IWorker? named = workers.FirstOrDefault(worker => worker.MoveId is null);
        IWorker? moved = move is not { Kind: MoveKind.Upgrade }
            ? null
            : workers.FirstOrDefault(worker => string.Equals(worker.MoveId, move.Id, StringComparison.Ordinal));
        IWorker? keep = move switch
        {
            { Kind: MoveKind.Upgrade, Step: MoveStep.Committed } => moved,
            { Kind: MoveKind.Upgrade, Step: MoveStep.SourceGone } => moved ?? named, // the names may be taken already
            _ => named,
        };
        return (keep, [.. workers.Where(worker => !ReferenceEquals(worker, keep))]);
    }
}
