using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>Hears of the runs of a VM. Called under the supervisor's lock: quick, and without calling it back.</summary>
internal interface IRunObserver
{
    /// <summary>A worker has the VM from now on.</summary>
    void RunBegan(IWorker worker);

    /// <summary>The run goes on in another worker.</summary>
    void RunMoved(IWorker worker) => RunBegan(worker);

    /// <summary>No worker has it any more.</summary>
    void RunEnded();
}

/// <summary>
/// What stands of a VM at this moment: its state, its worker while it has one, the start that goes on, the next one that is due, the stops
/// that are asked for. Everything here is used under <see cref="Gate"/>.
/// </summary>
/// <param name="name">Name of the VM.</param>
/// <param name="first">Where it stands.</param>
/// <param name="events">Who listens hears of its states.</param>
internal sealed class VmRun(string name, VmState first, EventHub events)
{
    private IRunObserver[] _observers = [];
    private long _startedAt;

    /// <summary>The lock.</summary>
    internal Lock Gate { get; } = new();

    /// <summary>Where the VM stands.</summary>
    internal VmState State { get; private set; } = first;

    /// <summary>Its worker; null when it has none.</summary>
    internal IWorker? Worker { get; private set; }

    /// <summary>The worker that had this run before it moved to <see cref="Worker"/>; null when it has not moved.</summary>
    internal IWorker? Before { get; private set; }

    /// <summary>The start that goes on; null when none does.</summary>
    internal Launch? Launch { get; set; }

    /// <summary>The next start by the daemon.</summary>
    internal RestartSchedule Restarts { get; } = new();

    /// <summary>Stops that are asked for.</summary>
    internal StopRequests Stops { get; } = new();

    /// <summary>Something runs or is about to.</summary>
    internal bool IsAlive => State.IsAlive(Worker is not null);

    /// <summary>How long it has its worker.</summary>
    internal TimeSpan Lasted => TimeSpan.FromMilliseconds(Environment.TickCount64 - _startedAt);

    /// <summary>Who hears of its runs.</summary>
    internal void Observe(IRunObserver[] observers) => _observers = observers;

    /// <summary>A worker has it from now on.</summary>
    internal void Attach(IWorker worker)
    {
        Worker = worker;
        _startedAt = Environment.TickCount64;
        foreach (IRunObserver observer in _observers)
        {
            observer.RunBegan(worker);
        }
    }

    /// <summary>The run goes on in another worker.</summary>
    internal void Move(IWorker worker)
    {
        (Before, Worker) = (Worker, worker);
        foreach (IRunObserver observer in _observers)
        {
            observer.RunMoved(worker);
        }
    }

    /// <summary>No worker has it any more.</summary>
    /// <returns>The one that had it.</returns>
    internal IWorker? Detach()
    {
        IWorker? worker = Worker;
        (Worker, Before) = (null, null);
        foreach (IRunObserver observer in _observers)
        {
            observer.RunEnded();
        }

        return worker;
    }

    /// <summary>It stands elsewhere now.</summary>
    internal void Become(VmState state)
    {
        if (State != state)
        {
            State = state;
            events.Publish("state", name, state);
        }
    }
}
