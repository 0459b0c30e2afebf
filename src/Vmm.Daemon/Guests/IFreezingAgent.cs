namespace Vmm.Daemon.Guests;

/// <summary>An agent that can freeze a guest's file systems. Its end thaws what it froze, in bounded time, whatever ends it.</summary>
internal interface IFreezingAgent : IDisposable
{
    /// <summary>Freezes; null when what it says is not sound.</summary>
    /// <param name="limit">How long at most: they thaw by themselves then.</param>
    /// <param name="cancellation">Ends the waiting; the agent is of no use then.</param>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    Task<AgentAnswer?> FreezeAsync(TimeSpan limit, CancellationToken cancellation);

    /// <summary>Thaws; null when what it says is not sound.</summary>
    /// <exception cref="OperationCanceledException">The waiting was ended.</exception>
    Task<AgentAnswer?> ThawAsync(CancellationToken cancellation);
}
