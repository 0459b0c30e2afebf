namespace Vmm.Daemon.Replicas.Sending;

/// <summary>How long to wait after failures of a row: from 1 s, twice as long each time, at most a minute, less up to a quarter by
/// chance, so that many VMs do not ask at once. For one thread.</summary>
/// <param name="chance">From 0 to 1; null: a random number.</param>
internal sealed class Backoff(Func<double>? chance = null)
{
    private static readonly TimeSpan s_first = TimeSpan.FromSeconds(1), s_most = TimeSpan.FromMinutes(1);

    private readonly Func<double> _chance = chance ?? Random.Shared.NextDouble;
    private TimeSpan _next = s_first;

    /// <summary>It failed again.</summary>
    /// <returns>How long to wait.</returns>
    internal TimeSpan Next()
    {
        TimeSpan wait = _next;
        _next = _next * 2 < s_most ? _next * 2 : s_most;
        return wait * (1 - (_chance() / 4));
    }

    /// <summary>It works.</summary>
    internal void Reset() => _next = s_first;
}
