using Vmm.HostNet;

namespace Vmm.Daemon.Networks;

/// <summary>
/// Keeps one network up: what of it goes is made again, at once the first time, then in longer and longer pauses while it keeps going.
/// </summary>
/// <param name="network">The network.</param>
/// <param name="objects">Its objects; owned from here on.</param>
/// <param name="reserved">Tells its addresses and names.</param>
/// <param name="tell">Hears of what happens: a kind of event, and a text.</param>
internal sealed class NetworkRun(
    PrivateNetwork network, INetworkObjects objects, Func<IReadOnlyList<ReservedAddress>> reserved, Action<string, string> tell)
    : IAsyncDisposable
{
    /// <summary>Kinds of events.</summary>
    internal const string Restored = "network-restored", Failed = "network-failed", Forwarding = "network-forwarding";

    private const int LooksToAll = 15;
    private static readonly TimeSpan s_first = TimeSpan.FromSeconds(1), s_longest = TimeSpan.FromSeconds(30),
        s_steady = TimeSpan.FromMinutes(1);

    private readonly SemaphoreSlim _turn = new(1, 1);
    private readonly CancellationTokenSource _ending = new();
    private PrivateNetwork _network = network;
    private INetworkObjects _objects = objects;
    private Task _keeping = Task.CompletedTask;
    private TimeSpan _pause = TimeSpan.Zero;
    private long _lastRepair = long.MinValue, _next;
    private int _looks;

    /// <summary>The _network.</summary>
    internal PrivateNetwork Network => _network;

    /// <summary>Why it is not up; null: it is.</summary>
    internal string? Problem { get; private set; } = "it was not made yet";

    /// <summary>How often it is looked at.</summary>
    internal TimeSpan Interval { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Makes what is missing of it.</summary>
    /// <exception cref="HostNetException">It cannot be.</exception>
    internal Task EnsureAsync() => InTurnAsync(Ensure);

    /// <summary>Looks at it from now on.</summary>
    internal void Keep() => _keeping = Task.Run(KeepAsync);

    /// <summary>Its addresses have changed.</summary>
    internal Task UpdateAsync() => InTurnAsync(() => _objects.Update(reserved()));

    /// <summary>It is another from now on.</summary>
    /// <param name="next">What it is.</param>
    /// <param name="made">Its objects, in place of those it had; owned from here on.</param>
    /// <exception cref="HostNetException">They cannot be made; that is tried again.</exception>
    internal Task ChangeAsync(PrivateNetwork next, INetworkObjects made) => InTurnAsync(() =>
    {
        INetworkObjects before = _objects;
        (_network, _objects) = (next, made);
        try
        {
            using (before)
            {
                before.RemoveIpv6();
            }

            Ensure();
        }
        catch (Exception cause) when (cause is HostNetException or Interop.KernelException)
        {
            Problem = cause.Message;
            throw cause as HostNetException ?? new HostNetException($"network {_network.Name}: {cause.Message}", cause);
        }
    });

    /// <summary>Removes it.</summary>
    /// <exception cref="HostNetException">Something stays; it is not looked at any more.</exception>
    internal async Task RemoveAsync()
    {
        await EndAsync().ConfigureAwait(false);
        await InTurnAsync(_objects.Remove).ConfigureAwait(false);
    }

    /// <summary>Lets go of it: it stays as it is.</summary>
    public async ValueTask DisposeAsync()
    {
        await EndAsync().ConfigureAwait(false);
        _objects.Dispose();
        _turn.Dispose();
        _ending.Dispose();
    }

    private async Task EndAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _keeping.ConfigureAwait(false);
    }

    private async Task KeepAsync()
    {
        try
        {
            using PeriodicTimer timer = new(Interval);
            while (await timer.WaitForNextTickAsync(_ending.Token).ConfigureAwait(false))
            {
                await InTurnAsync(Look).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            // That is all.
        }
    }

    private void Look()
    {
        if (Environment.TickCount64 < _next)
        {
            return;
        }

        try
        {
            string? missing = _objects.Missing(all: _looks++ % LooksToAll == LooksToAll - 1);
            if (missing is null && Problem is null)
            {
                return;
            }

            Ensure();
            PlanNext();
            tell(Restored, missing is null ? $"{_network.Name} is up" : $"{_network.Name}: {missing}, and it is as it is to be again");
        }
        catch (Exception cause) when (cause is HostNetException or IOException or UnauthorizedAccessException or Interop.KernelException)
        {
            if (!string.Equals(Problem, cause.Message, StringComparison.Ordinal))
            {
                tell(Failed, $"{_network.Name}: {cause.Message}");
            }

            Problem = cause.Message;
            PlanNext();
        }
    }

    private void PlanNext()
    {
        long now = Environment.TickCount64;
        bool again = now - _lastRepair < (long)s_steady.TotalMilliseconds && _lastRepair != long.MinValue;
        _pause = !again || _pause == TimeSpan.Zero ? s_first : TimeSpan.FromTicks(Math.Min(s_longest.Ticks, 2 * _pause.Ticks));
        _lastRepair = now;
        _next = now + (long)_pause.TotalMilliseconds;
    }

    private void Ensure()
    {
        try
        {
            if (_objects.Ensure(reserved()) is { Count: > 0 } settings)
            {
                tell(Forwarding, $"the host forwards packets from now on ({string.Join(", ", settings)}), those of private networks and "
                    + "no others");
            }

            Problem = null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or Interop.KernelException)
        {
            throw new HostNetException($"network {_network.Name}: {cause.Message}", cause);
        }
    }

    private async Task InTurnAsync(Action what)
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            await Task.Run(what).ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }
    }
}
