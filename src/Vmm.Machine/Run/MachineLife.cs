using Vmm.LifeCycle;
using Vmm.Machine.Build;
using Vmm.Machine.Hotplug;

namespace Vmm.Machine.Run;

/// <summary>
/// The life of one machine, from its first instruction to its end: its state, and what each move of <see cref="VmLifeCycle"/> does to its
/// vCPUs, devices and clock.
/// </summary>
/// <param name="board">What its parts are connected to.</param>
/// <param name="vcpus">Its vCPUs.</param>
/// <param name="devices">Its devices.</param>
/// <param name="panics">What follows when its guest panics.</param>
/// <param name="feed">Takes what the user types.</param>
internal sealed class MachineLife(Board board, VcpuSet vcpus, DeviceSet devices, GuestPanics panics, ConsoleFeed feed)
    : IPausable
{
    private static readonly TimeSpan s_restPatience = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly DeviceRest _rest = new(devices);
    private VmState _state = VmState.Starting;
    private object? _pausedBy; // null: by command

    /// <summary>Where it stands; any thread.</summary>
    internal VmState State
    {
        get
        {
            lock (_lock)
            {
                return _state;
            }
        }
    }

    /// <summary>Stops the vCPUs, the guest's clock and the devices; returns when all stand still. Any thread.</summary>
    /// <exception cref="VmStateException">It does not run, or ended meanwhile.</exception>
    internal void Pause()
    {
        lock (_lock)
        {
            PauseFor(null);
        }
    }

    /// <summary>The same for somebody who lets it go on later with <see cref="TryResume"/>.</summary>
    /// <returns>False: it does not run, or ended meanwhile.</returns>
    public bool TryPause(object owner)
    {
        lock (_lock)
        {
            if (!VmLifeCycle.TryNext(_state, VmEvent.Paused, out _))
            {
                return false;
            }

            try
            {
                PauseFor(owner);
                return true;
            }
            catch (VmStateException)
            {
                return false;
            }
        }
    }

    /// <summary>It is paused since <paramref name="owner"/> did that, and nobody took the pause over.</summary>
    public bool IsPausedBy(object owner)
    {
        lock (_lock)
        {
            return _state == VmState.Paused && ReferenceEquals(_pausedBy, owner);
        }
    }

    /// <summary>Lets it go on, when it is paused by <paramref name="owner"/>.</summary>
    public bool TryResume(object owner)
    {
        lock (_lock)
        {
            if (_state != VmState.Paused || !ReferenceEquals(_pausedBy, owner))
            {
                return false;
            }

            Resume();
            return true;
        }
    }

    /// <summary>Takes the pause over from who made it.</summary>
    /// <returns>Whose it was, for <see cref="ReturnPause"/>.</returns>
    internal object? ClaimPause()
    {
        lock (_lock)
        {
            object? owner = _pausedBy;
            _pausedBy = null;
            return owner;
        }
    }

    /// <summary>Ends <see cref="ClaimPause"/>.</summary>
    internal void ReturnPause(object? owner)
    {
        lock (_lock)
        {
            _pausedBy = owner;
        }
    }

    /// <summary>Lets devices and vCPUs go on; the guest is told that it was paused. Any thread.</summary>
    /// <exception cref="VmStateException">It is not paused.</exception>
    internal void Resume()
    {
        lock (_lock)
        {
            VmState running = VmLifeCycle.Next(_state, VmEvent.Resumed);
            _pausedBy = null;
            _rest.Resume();
            board.Clock.Start();
            vcpus.NotifyPaused();
            board.Gate.Open();
            _state = running;
        }
    }

    /// <summary>Brings the devices of a paused machine to rest, also again.</summary>
    internal void HoldDevices() => _rest.TryHold(s_restPatience);

    /// <summary>Runs the guest to its end; calls <paramref name="started"/> once its state says that it runs.</summary>
    /// <exception cref="VmStateException">It ran before.</exception>
    internal RunResult Run(Action? started, CancellationToken stop)
    {
        using CancellationTokenRegistration registration = stop.Register(() => board.End.Decide(new RunResult(ExitReason.Stopped)));
        lock (_lock)
        {
            VmState running = VmLifeCycle.Next(_state, VmEvent.Started);
            board.Restored?.Invoke();
            vcpus.Start();
            _state = running;
        }

        started?.Invoke();
        feed.Start();
        RunResult result = panics.Apply(board.End.Wait());
        End();
        return result.Reason is ExitReason.TripleFault or ExitReason.Failed ? result with { Report = vcpus.CrashReport() } : result;
    }

    /// <summary>After a panic: the vCPUs stand still for good, unless it ended meanwhile.</summary>
    /// <returns>False: it ended.</returns>
    internal bool TryPreserve()
    {
        lock (_lock)
        {
            if (!VmLifeCycle.TryNext(_state, VmEvent.Crashed, out VmState crashed) || !vcpus.Park())
            {
                return false;
            }

            _state = crashed;
            return true;
        }
    }

    /// <summary>It is over: its vCPUs and devices stop. Also when it is over already.</summary>
    internal void End()
    {
        vcpus.End();
        devices.End();
        devices.FlushDisks();
        board.DiskFaults.End();
        board.DiskStalls.End();
        feed.End();
        lock (_lock)
        {
            // What has ended stays so. Why it ended says the result, not the state.
            _state = VmLifeCycle.TryNext(_state, VmEvent.Ended, out VmState ended) ? ended : _state;
        }
    }

    // Under the lock.
    private void PauseFor(object? owner)
    {
        VmState paused = VmLifeCycle.Next(_state, VmEvent.Paused);
        board.Gate.Close();
        if (!vcpus.Park())
        {
            throw new VmStateException(VmState.Stopped, VmEvent.Paused);
        }

        board.Clock.Stop();
        HoldDevices();
        _pausedBy = owner;
        _state = paused;
    }
}
