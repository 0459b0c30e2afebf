namespace Vmm.Daemon.Access;

/// <summary>Counts open connections, in all and of each peer. Thread-safe.</summary>
/// <param name="most">Most of all peers together.</param>
/// <param name="mostOfPeer">Most of one peer.</param>
internal sealed class ConnectionLimiter(int most, int mostOfPeer)
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, int> _open = new(StringComparer.Ordinal);
    private int _count;

    /// <summary>Open now.</summary>
    internal int Count
    {
        get
        {
            lock (_gate)
            {
                return _count;
            }
        }
    }

    /// <summary>One more connection of a peer; null when it has too many, or all have.</summary>
    internal IDisposable? TryEnter(string peer)
    {
        lock (_gate)
        {
            int before = _open.GetValueOrDefault(peer);
            if (_count >= most || before >= mostOfPeer)
            {
                return null;
            }

            _count++;
            _open[peer] = before + 1;
            return new Lease(this, peer);
        }
    }

    private void Leave(string peer)
    {
        lock (_gate)
        {
            _count--;
            if (--_open[peer] == 0)
            {
                _open.Remove(peer);
            }
        }
    }

    private sealed class Lease(ConnectionLimiter limiter, string peer) : IDisposable
    {
        private ConnectionLimiter? _limiter = limiter;

        public void Dispose() => Interlocked.Exchange(ref _limiter, null)?.Leave(peer);
    }
}
