namespace Vmm.Daemon.Vms;

/// <summary>A start that goes on, which a stop may end. Under the lock of its VM.</summary>
/// <param name="cancel">Ends it.</param>
internal sealed class Launch(CancellationTokenSource cancel)
{
    /// <summary>A stop ended it.</summary>
    internal bool Stopped { get; private set; }

    /// <summary>Ends it. Who waits goes on elsewhere: this is called under a lock.</summary>
    internal void Stop()
    {
        Stopped = true;
        _ = cancel.CancelAsync();
    }
}

/// <summary>One stop that somebody asked for.</summary>
internal sealed class StopRequest;

/// <summary>
/// The stops that are asked for of one run of a VM: while there is one, its end is no reason to start it again. Under the lock of its VM.
/// </summary>
internal sealed class StopRequests
{
    private readonly HashSet<StopRequest> _requests = [];

    /// <summary>The run is to end.</summary>
    internal bool Any => _requests.Count > 0;

    /// <summary>A new run: earlier stops were about another.</summary>
    internal void Clear() => _requests.Clear();

    /// <summary>Somebody asks for a stop.</summary>
    internal StopRequest Add()
    {
        StopRequest request = new();
        _requests.Add(request);
        return request;
    }

    /// <summary>It was given up.</summary>
    internal void Remove(StopRequest request) => _requests.Remove(request);
}
