using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Access;

/// <summary>
/// Around every connection, before a byte of it is read: how many there may be. The unix socket and the TLS port are counted apart, so that
/// neither is in the way of the other; root and the daemon's own user are not limited on the unix socket, so that an administrator always
/// gets in.
/// </summary>
internal sealed class ConnectionGuard(DaemonOptions options, Refusals refusals) : IDisposable
{
    /// <summary>Longest handshake, from the first byte of the connection on.</summary>
    internal static readonly TimeSpan HandshakeTime = TimeSpan.FromSeconds(5);

    private const int Handshakes = 32, HandshakesOfPeer = 8;

    private readonly ConnectionLimiter _local = new(options.Connections, options.PeerConnections);
    private readonly ConnectionLimiter _remote = new(options.Connections, options.PeerConnections);
    private readonly HandshakeLimiter _handshakes = new(Handshakes, HandshakesOfPeer, 2 * HandshakeTime);

    /// <summary>Open on the unix socket, those that are limited.</summary>
    internal int LocalConnections => _local.Count;

    /// <summary>Open on the TLS port.</summary>
    internal int RemoteConnections => _remote.Count;

    /// <summary>Limits of both endpoints that the web server keeps itself: idle connections, headers that do not come to an end.</summary>
    internal static void SetLimits(KestrelServerLimits limits)
    {
        limits.MaxRequestBodySize = DaemonOptions.MaxBodyBytes;
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(100); // longer than clients keep a connection that they do not use
    }

    /// <summary>Guards a unix socket.</summary>
    internal void GuardLocal(ListenOptions listen)
    {
        listen.Protocols = HttpProtocols.Http1;
        listen.Use(next => connection => LocalAsync(connection, next));
    }

    /// <summary>Guards the TLS port; to be followed by the handshake and <see cref="HandshakeDone"/>.</summary>
    internal void GuardRemote(ListenOptions listen)
    {
        listen.Protocols = HttpProtocols.Http1;
        listen.Use(next => connection => RemoteAsync(connection, next));
    }

    /// <summary>The handshake is over: its turn is another's.</summary>
    internal static void HandshakeDone(ListenOptions listen) => listen.Use(next => connection =>
    {
        connection.Features.Get<HandshakeTurn>()?.Turn.Dispose();
        return next(connection);
    });

    public void Dispose() => _handshakes.Dispose();

    private async Task LocalAsync(ConnectionContext connection, ConnectionDelegate next)
    {
        Peer? peer = connection.Features.Get<IConnectionSocketFeature>() is { } feature ? Peer.Of(feature.Socket) : null;
        if (peer is not null && options.Allows(peer))
        {
            await next(connection).ConfigureAwait(false);
            return;
        }

        await CountedAsync(_local, peer is null ? PeerKey.Unknown : PeerKey.Of(peer), connection, next).ConfigureAwait(false);
    }

    private Task RemoteAsync(ConnectionContext connection, ConnectionDelegate next)
    {
        string peer = PeerKey.Of(connection);
        return CountedAsync(_remote, peer, connection, counted => ShakeAsync(peer, counted, next));
    }

    private async Task CountedAsync(ConnectionLimiter limiter, string peer, ConnectionContext connection, ConnectionDelegate next)
    {
        using IDisposable? lease = limiter.TryEnter(peer);
        if (lease is null)
        {
            refusals.Count(peer, "too-many-connections", "a connection");
            connection.Abort(new ConnectionAbortedException("too many connections"));
            return;
        }

        await next(connection).ConfigureAwait(false);
    }

    private async Task ShakeAsync(string peer, ConnectionContext connection, ConnectionDelegate next)
    {
        using IDisposable? turn = await _handshakes.EnterAsync(peer, connection.ConnectionClosed).ConfigureAwait(false);
        if (connection.ConnectionClosed.IsCancellationRequested)
        {
            return;
        }

        if (turn is null)
        {
            refusals.Count(peer, "too-many-handshakes", "a handshake");
            connection.Abort(new ConnectionAbortedException("too many handshakes"));
            return;
        }

        connection.Features.Set(new HandshakeTurn(turn));
        await next(connection).ConfigureAwait(false);
    }

    private sealed record HandshakeTurn(IDisposable Turn);
}
