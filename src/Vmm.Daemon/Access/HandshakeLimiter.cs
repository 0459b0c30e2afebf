namespace Vmm.Daemon.Access;

/// <summary>
/// Bounds how many TLS handshakes go on at once, in all and of each peer: they cost CPU time before anybody is known. The others wait their
/// turn; a peer whose handshakes hang holds its own share only. Thread-safe.
/// </summary>
/// <param name="most">Most at once.</param>
/// <param name="mostOfPeer">Most of one peer at once.</param>
/// <param name="patience">How long one waits for its turn.</param>
internal sealed class HandshakeLimiter(int most, int mostOfPeer, TimeSpan patience) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, Share> _shares = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _all = new(most, most);

    /// <summary>Waits for a turn; null when there was none in time, or the peer left.</summary>
    internal async Task<IDisposable?> EnterAsync(string peer, CancellationToken cancellation)
    {
        Share share = Take(peer);
        bool own = false;
        try
        {
            long begin = Environment.TickCount64;
            own = await share.Turns.WaitAsync(patience, cancellation).ConfigureAwait(false);
            TimeSpan left = patience - TimeSpan.FromMilliseconds(Environment.TickCount64 - begin);
            if (own && await _all.WaitAsync(left > TimeSpan.Zero ? left : TimeSpan.Zero, cancellation).ConfigureAwait(false))
            {
                return new Turn(this, peer, share);
            }
        }
        catch (OperationCanceledException)
        {
            // It left while it waited.
        }

        Return(peer, share, own);
        return null;
    }

    public void Dispose() => _all.Dispose();

    private Share Take(string peer)
    {
        lock (_gate)
        {
            if (!_shares.TryGetValue(peer, out Share? share))
            {
                _shares[peer] = share = new Share(new SemaphoreSlim(mostOfPeer, mostOfPeer));
            }

            share.Users++;
            return share;
        }
    }

    private void Return(string peer, Share share, bool own)
    {
        if (own)
        {
            share.Turns.Release();
        }

        lock (_gate)
        {
            if (--share.Users == 0)
            {
                _shares.Remove(peer);
                share.Turns.Dispose();
            }
        }
    }

    private sealed class Share(SemaphoreSlim turns)
    {
        internal SemaphoreSlim Turns => turns;

        internal int Users { get; set; }
    }

    private sealed class Turn(HandshakeLimiter limiter, string peer, Share share) : IDisposable
    {
        private int _over;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _over, 1) == 0)
            {
                limiter._all.Release();
                limiter.Return(peer, share, own: true);
            }
        }
    }
}
