using Vmm.Daemon.Guests;

namespace Vmm.Daemon.Balancer;

/// <summary>
/// Asks the agent in a guest how its memory stands: one question, one line, in bounded time. The guest is not trusted, nor is it waited
/// for.
/// </summary>
internal static class AgentClient
{
    /// <summary>Null when there is no agent, or it says nothing sound in time.</summary>
    /// <param name="path">The VM's vsock socket.</param>
    /// <param name="patience">For all of it.</param>
    /// <param name="cancellation">Ends it early.</param>
    internal static async Task<AgentReport?> AskAsync(string path, TimeSpan patience, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(patience);
        try
        {
            using AgentConnection? agent = await AgentConnection.OpenAsync(path, deadline.Token).ConfigureAwait(false);
            return agent is not null
                && await agent.AskAsync("""{"v":1,"get":"memory"}""", deadline.Token).ConfigureAwait(false) is { } answer
                ? AgentReport.TryRead(answer)
                : null;
        }
        catch (OperationCanceledException)
        {
            return null;
        }
    }
}
