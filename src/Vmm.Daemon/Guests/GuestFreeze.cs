using System.Diagnostics;
using System.Globalization;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Guests;

/// <summary>
/// File systems of a guest that its agent froze, for as long as this lives: <see cref="EndAsync"/> thaws them and says whether they were
/// frozen until then. The agent thaws them by itself when the time limit is over, and when the connection ends, be it because this daemon
/// does. What the guest says decides nothing but what is told of its own snapshot.
/// </summary>
internal sealed class GuestFreeze : IAsyncDisposable
{
    private static readonly TimeSpan s_connect = TimeSpan.FromSeconds(3), s_margin = TimeSpan.FromSeconds(2),
        s_thaw = TimeSpan.FromSeconds(5);

    private readonly TimeSpan _limit;
    private readonly long _since;
    private IFreezingAgent? _agent; // null: nothing is to be thawed

    private GuestFreeze(GuestQuiesce result) => Result = result;

    private GuestFreeze(GuestQuiesce result, IFreezingAgent agent, TimeSpan limit, long since) : this(result) =>
        (_agent, _limit, _since) = (agent, limit, since);

    /// <summary>How long a guest may be frozen when nobody says otherwise, and at most.</summary>
    internal static TimeSpan DefaultLimit { get; } = TimeSpan.FromSeconds(10);

    /// <inheritdoc cref="DefaultLimit"/>
    internal static TimeSpan LongestLimit { get; } = TimeSpan.FromSeconds(60);

    /// <summary>How it stands; final after <see cref="EndAsync"/>.</summary>
    internal GuestQuiesce Result { get; private set; }

    /// <summary>The guest says that it is frozen.</summary>
    internal bool IsFrozen => Result.State == QuiesceState.Frozen;

    /// <summary>A guest that was not asked, and why.</summary>
    internal static GuestFreeze NotAsked(QuiesceState state, string why) => new(new GuestQuiesce(state, Why: why));

    /// <summary>As the other, by our own agent.</summary>
    /// <param name="path">The VM's vsock socket.</param>
    /// <param name="limit">How long it may last.</param>
    /// <param name="cancellation">Gives up; the guest thaws.</param>
    internal static Task<GuestFreeze> BeginAsync(string path, TimeSpan limit, CancellationToken cancellation) =>
        BeginAsync(open => VsockFreezer.OpenAsync(path, open), limit, cancellation);

    /// <summary>Asks for a freeze; a guest that does not obey is no error, <see cref="Result"/> tells why.</summary>
    /// <param name="open">Reaches the agent, or answers null when there is none.</param>
    /// <param name="limit">How long it may last, from 1 s to <see cref="LongestLimit"/>; whole seconds.</param>
    /// <param name="cancellation">Gives up; the guest thaws.</param>
    /// <exception cref="OperationCanceledException">It was given up.</exception>
    internal static async Task<GuestFreeze> BeginAsync(
        Func<CancellationToken, Task<IFreezingAgent?>> open, TimeSpan limit, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, TimeSpan.FromSeconds(1));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, LongestLimit);
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(s_connect);
        IFreezingAgent? agent = null;
        bool isFrozen = false;
        try
        {
            agent = await open(deadline.Token).ConfigureAwait(false);
            if (agent is null)
            {
                return NotAsked(QuiesceState.NoAgent, "no agent listens in the guest");
            }

            deadline.CancelAfter(limit + s_margin);
            long since = Stopwatch.GetTimestamp();
            GuestQuiesce result = await FreezeAsync(agent, limit, deadline.Token).ConfigureAwait(false);
            isFrozen = result.State == QuiesceState.Frozen;
            return isFrozen ? new GuestFreeze(result, agent, limit, since) : new GuestFreeze(result);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return agent is null ? NotAsked(QuiesceState.NoAgent, "no agent answers in the guest")
                : NotAsked(QuiesceState.TooLate, $"the guest was not frozen within {Seconds(limit)} s");
        }
        finally
        {
            if (!isFrozen)
            {
                agent?.Dispose();
            }
        }
    }

    /// <summary>Thaws, whatever happened; in bounded time, and never throws. Once more changes nothing.</summary>
    internal async Task<GuestQuiesce> EndAsync()
    {
        if (Interlocked.Exchange(ref _agent, null) is not { } agent)
        {
            return Result;
        }

        TimeSpan lasted = Stopwatch.GetElapsedTime(_since);
        using (agent)
        using (CancellationTokenSource deadline = new(s_thaw))
        {
            try
            {
                Result = Judge(await agent.ThawAsync(deadline.Token).ConfigureAwait(false), lasted);
            }
            catch (OperationCanceledException)
            {
                Result = Judge(null, lasted);
            }
        }

        return Result;
    }

    /// <inheritdoc cref="EndAsync"/>
    public async ValueTask DisposeAsync() => await EndAsync().ConfigureAwait(false);

    private static async Task<GuestQuiesce> FreezeAsync(IFreezingAgent agent, TimeSpan limit, CancellationToken cancellation)
    {
        return await agent.FreezeAsync(limit, cancellation).ConfigureAwait(false) switch
        {
            { Error: AgentAnswer.NotUnderstood } => new GuestQuiesce(QuiesceState.Refused, Why: "its agent is too old to freeze"),
            { Error: { } why } => new GuestQuiesce(QuiesceState.Refused, Why: why),
            { Frozen: > 0 } frozen => new GuestQuiesce(QuiesceState.Frozen, frozen.Frozen, frozen.Left),
            _ => new GuestQuiesce(QuiesceState.Refused, Why: "its agent says nothing sound"),
        };
    }

    private static string Seconds(TimeSpan limit) => ((int)limit.TotalSeconds).ToString(CultureInfo.InvariantCulture);

    /// <summary>Our clock began before the guest's: what is within the limit here was within it there.</summary>
    private GuestQuiesce Judge(AgentAnswer? answer, TimeSpan lasted) =>
        answer is null ? TooLate("the guest did not say that it was frozen to the end")
        : answer.Error is { } why ? TooLate(why)
        : lasted > _limit || answer.Late ? TooLate($"the guest thawed by itself before the end, its limit was {Seconds(_limit)} s")
        : answer.Thawed != Result.FileSystems ? TooLate($"the guest thawed {answer.Thawed} of {Result.FileSystems} file systems")
        : Result;

    private GuestQuiesce TooLate(string why) => Result with { State = QuiesceState.TooLate, Why = why };
}
