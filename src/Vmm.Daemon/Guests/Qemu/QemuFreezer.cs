namespace Vmm.Daemon.Guests.Qemu;

/// <summary>
/// Freezes by the standard agent, which never thaws by itself: at the limit this does, and when the stream to the agent ends, be it because
/// this daemon does, the worker tells the guest to (<see cref="QemuAgent.Thaw"/>).
/// </summary>
/// <param name="agent">The conversation, whose stream has those last words; owned.</param>
/// <param name="ended">Called once, when it is over.</param>
internal sealed class QemuFreezer(QemuAgent agent, Action ended) : IFreezingAgent
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);
    private const int MostFileSystems = 4096;

    private readonly CancellationTokenSource _inTime = new();
    private Task<AgentAnswer?> _late = Task.FromResult<AgentAnswer?>(null);
    private Action? _ended = ended;

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _ended, null) is { } over)
        {
            _inTime.Cancel();
            agent.Dispose();
            _inTime.Dispose();
            over();
        }
    }

    /// <inheritdoc/>
    public async Task<AgentAnswer?> FreezeAsync(TimeSpan limit, CancellationToken cancellation)
    {
        AgentAnswer? answer = await CountAsync(
            "guest-fsfreeze-freeze", count => new AgentAnswer(1, Frozen: count), cancellation).ConfigureAwait(false);
        if (answer is { Frozen: > 0 })
        {
            _late = ThawWhenLateAsync(limit, _inTime.Token);
        }

        return answer;
    }

    /// <inheritdoc/>
    public async Task<AgentAnswer?> ThawAsync(CancellationToken cancellation)
    {
        await _inTime.CancelAsync().ConfigureAwait(false);
        return await _late.ConfigureAwait(false) ?? await ThawNowAsync(cancellation).ConfigureAwait(false);
    }

    private async Task<AgentAnswer?> ThawWhenLateAsync(TimeSpan limit, CancellationToken inTime)
    {
        try
        {
            await Task.Delay(limit, inTime).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            return null;
        }

        using CancellationTokenSource deadline = new(s_patience);
        try
        {
            return (await ThawNowAsync(deadline.Token).ConfigureAwait(false) ?? new AgentAnswer(1)) with { Late = true };
        }
        catch (Exception cause) when (cause is OperationCanceledException or ObjectDisposedException)
        {
            return new AgentAnswer(1, Late: true);
        }
    }

    private Task<AgentAnswer?> ThawNowAsync(CancellationToken cancellation) =>
        CountAsync("guest-fsfreeze-thaw", count => new AgentAnswer(1, Thawed: count), cancellation);

    private async Task<AgentAnswer?> CountAsync(string command, Func<int, AgentAnswer> answer, CancellationToken cancellation)
    {
        try
        {
            long count = await agent.AskAsync(command, QemuJson.Default.Int64, cancellation).ConfigureAwait(false);
            return count is >= 0 and <= MostFileSystems ? answer((int)count) : null;
        }
        catch (QemuAgentException refused)
        {
            return refused.Fault == QemuAgentFault.Unsound ? null : new AgentAnswer(1, Error: refused.Message);
        }
    }
}
