using System.Collections.Concurrent;

namespace Vmm.Daemon.Access;

/// <summary>
/// Ends what somebody has open when they are not known any more. A request is checked only when it begins; a stream of events and a console
/// go on for hours. Thread-safe.
/// </summary>
internal sealed class Revocations
{
    private readonly ConcurrentDictionary<string, CancellationTokenSource> _watched = new(StringComparer.Ordinal);

    /// <summary>Cancelled when what <paramref name="key"/> names is revoked.</summary>
    /// <param name="key">A token or certificate.</param>
    /// <param name="known">Whether it is good still: asked behind the entry in the list, so that a revocation is seen here or finds the
    /// entry.</param>
    internal CancellationToken Watch(string key, Func<bool> known)
    {
        CancellationToken revoked = _watched.GetOrAdd(key, _ => new CancellationTokenSource()).Token;
        if (known())
        {
            return revoked;
        }

        End(key);
        return new CancellationToken(canceled: true);
    }

    /// <summary>It is revoked: to be called when it cannot be found any more.</summary>
    internal void End(string key)
    {
        if (_watched.TryRemove(key, out CancellationTokenSource? source))
        {
            _ = source.CancelAsync(); // what ends runs on other threads, not on that of who revoked it
        }
    }
}
