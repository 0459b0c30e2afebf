using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>The host users that workers run as: one for each VM, so that no worker can touch what is another's. Any thread.</summary>
/// <param name="first">The first of them; null: workers run as this process does.</param>
/// <param name="count">How many there are.</param>
internal sealed class WorkerUsers(uint? first, uint count)
{
    private readonly Lock _lock = new();
    private readonly HashSet<uint> _taken = [];

    /// <summary>One that nobody has; null when workers have none of their own.</summary>
    /// <exception cref="WorkerException">All are taken.</exception>
    internal uint? Take()
    {
        if (first is not { } lowest)
        {
            return null;
        }

        lock (_lock)
        {
            for (uint user = lowest; user < lowest + count; user++)
            {
                if (_taken.Add(user))
                {
                    return user;
                }
            }
        }

        throw new WorkerException(ControlCodes.TooManyWorkers, $"all {count} worker users are taken");
    }

    /// <summary>A worker that was there before this daemon has that user.</summary>
    internal void Reserve(RemoteWorker worker, uint user)
    {
        lock (_lock)
        {
            if (first is { } lowest && user >= lowest && user < lowest + count && _taken.Add(user) && !worker.TryOwn(user))
            {
                _taken.Remove(user);
            }
        }
    }

    /// <summary>Its worker is gone.</summary>
    internal void GiveBack(uint? user)
    {
        if (user is { } taken)
        {
            lock (_lock)
            {
                _taken.Remove(taken);
            }
        }
    }
}
