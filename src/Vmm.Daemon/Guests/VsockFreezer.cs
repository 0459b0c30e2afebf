using System.Globalization;

namespace Vmm.Daemon.Guests;

/// <summary>
/// Freezes by our own agent (deploy/guest-agent/README.md), which thaws by itself when the limit is over or the connection ends.
/// </summary>
internal sealed class VsockFreezer(AgentConnection agent) : IFreezingAgent
{
    /// <inheritdoc/>
    public void Dispose() => agent.Dispose();

    /// <inheritdoc/>
    public Task<AgentAnswer?> FreezeAsync(TimeSpan limit, CancellationToken cancellation) => AskAsync(
        string.Create(CultureInfo.InvariantCulture, $$$"""{"v":1,"freeze":{"seconds":{{{(int)limit.TotalSeconds}}}}}"""), cancellation);

    /// <inheritdoc/>
    public Task<AgentAnswer?> ThawAsync(CancellationToken cancellation) => AskAsync("""{"v":1,"thaw":true}""", cancellation);

    /// <summary>Null when nobody listens in the guest.</summary>
    internal static async Task<IFreezingAgent?> OpenAsync(string path, CancellationToken cancellation) =>
        await AgentConnection.OpenAsync(path, cancellation).ConfigureAwait(false) is { } agent ? new VsockFreezer(agent) : null;

    private async Task<AgentAnswer?> AskAsync(string question, CancellationToken cancellation) =>
        await agent.AskAsync(question, cancellation).ConfigureAwait(false) is { } line ? AgentAnswer.TryRead(line) : null;
}
