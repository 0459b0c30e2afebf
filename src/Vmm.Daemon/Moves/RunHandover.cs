using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Moves;

/// <summary>How a run goes on in another worker: the end of the one before is not the end of the run then.</summary>
/// <param name="run">The run.</param>
/// <param name="ends">Hears of the end of the worker that has it.</param>
internal sealed class RunHandover(VmRun run, RunEnds ends)
{
    /// <summary>Another worker has the VM from now on.</summary>
    /// <param name="from">The one that has it.</param>
    /// <param name="to">The one that gets it.</param>
    /// <returns>False: it has ended, crashed, or somebody pulled its plug.</returns>
    internal bool TryMove(IWorker from, IWorker to)
    {
        lock (run.Gate)
        {
            if (!ReferenceEquals(run.Worker, from) || run.State != VmState.Migrating)
            {
                return false;
            }

            run.Move(to);
        }

        ends.Watch(to);
        return true;
    }

    /// <summary>Undoes <see cref="TryMove"/>, when it could not be written.</summary>
    internal void MoveBack(IWorker from, IWorker to)
    {
        lock (run.Gate)
        {
            if (ReferenceEquals(run.Worker, to))
            {
                run.Move(from);
            }
        }

        ends.Watch(from); // it may have ended meanwhile
    }

    /// <summary>The worker that has the run after another one; null: that one was the last.</summary>
    internal IWorker? After(IWorker worker)
    {
        lock (run.Gate)
        {
            return ReferenceEquals(run.Before, worker) ? run.Worker : null;
        }
    }

    /// <summary>The move is over, or nothing came of it: the VM runs, or is paused, as its worker says.</summary>
    internal void Settle(IWorker worker)
    {
        lock (run.Gate)
        {
            VmEvent over = worker.State == VmState.Paused ? VmEvent.MoveOverPaused : VmEvent.MoveOver;
            if (ReferenceEquals(run.Worker, worker) && VmLifeCycle.TryNext(run.State, over, out VmState next))
            {
                run.Become(next);
            }
        }
    }
}
