using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Tests;

/// <summary>What a stranger's connections cost, and that they are in nobody's way.</summary>
public sealed class ConnectionTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly TimeSpan s_generous = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task Nothing_is_fetched_from_an_address_in_a_clients_certificate()
    {
        using Authority ours = new("ours"), others = new("others");
        using TcpListener fetched = new(IPAddress.Loopback, 0);
        fetched.Start();
        int connections = 0;
        Task counting = CountAsync();
        Uri address = new($"http://{fetched.LocalEndpoint}/issuer.cer");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder => ours.Options(folder));
        foreach (X509Certificate2 certificate in new[]
        {
            others.ClientThatNames("stranger", address), ours.ClientThatNames("unknown", address)
        })
        {
            using VmmClient client = new(daemon.Host.TlsAddress!, null, certificate, ours.Trusted);
            string code = (await DaemonFixture.RefusedAsync(() => client.ListAsync(s_none).WaitAsync(s_generous))).Code;
            Assert.Contains(code, new[] { "daemon-unreachable", "unauthenticated" });
        }

        Assert.Equal(0, Volatile.Read(ref connections));
        fetched.Stop();
        await counting;

        async Task CountAsync()
        {
            try
            {
                while (true)
                {
                    using Socket socket = await fetched.AcceptSocketAsync();
                    Interlocked.Increment(ref connections);
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The test is over.
            }
        }
    }

    [Fact]
    public async Task Two_hundred_handshakes_that_hang_are_not_in_the_way_of_the_unix_socket_and_come_to_an_end()
    {
        using Authority ours = new("ours");
        using X509Certificate2 admin = ours.Client("admin");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(
            folder => ours.Options(folder, ("admin", Role.Admin, admin)) with { Connections = 400, PeerConnections = 300 });
        IPEndPoint at = IPEndPoint.Parse(daemon.Host.TlsAddress!.Authority);
        Socket[] hanging = [.. Enumerable.Range(0, 200).Select(_ => Hang(at))];
        try
        {
            for (int i = 0; i < 20; i++)
            {
                Assert.Equal("ok\n", await daemon.GetAsync("/healthz").WaitAsync(s_generous));
            }

            await Task.WhenAll(hanging.Select(EndAsync)).WaitAsync(TimeSpan.FromMinutes(4));
            using VmmClient client = new(daemon.Host.TlsAddress!, null, admin, ours.Trusted);
            Assert.Empty((await client.ListAsync(s_none)).Vms);
        }
        finally
        {
            Array.ForEach(hanging, s => s.Dispose());
        }

        // A ClientHello that does not come to an end: RFC 8446, section 5.1.
        static Socket Hang(IPEndPoint at)
        {
            Socket socket = new(SocketType.Stream, ProtocolType.Tcp);
            socket.Connect(at);
            socket.Send([22, 3, 1, 2, 0, 1]);
            return socket;
        }
    }

    [Fact]
    public async Task A_peer_gets_so_many_connections_and_all_peers_so_many_and_those_that_end_count_no_more()
    {
        using Authority ours = new("ours");
        using X509Certificate2 admin = ours.Client("admin");
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(
            folder => ours.Options(folder, ("admin", Role.Admin, admin)) with { Connections = 20, PeerConnections = 6 });
        List<SslStream> held = [];
        int refused = 0;
        for (int i = 0; i < 30; i++)
        {
            (SslStream stream, bool open) = await ConnectAsync(daemon, ours);
            if (open)
            {
                held.Add(stream);
            }
            else
            {
                refused++;
                await stream.DisposeAsync();
            }
        }

        Assert.Equal((6, 24), (held.Count, refused));
        Assert.Equal("ok\n", await daemon.GetAsync("/healthz")); // the other endpoint is counted apart
        await held[0].DisposeAsync();
        using VmmClient client = new(daemon.Host.TlsAddress!, null, admin, ours.Trusted);
        Assert.True(await SoonAsync(() => client.ListAsync(s_none)));
        Assert.Contains("vmm_refused_total{code=\"too-many-connections\"}", await daemon.GetAsync("/metrics"), StringComparison.Ordinal);
        held.ForEach(s => s.Dispose());
    }

    [Fact]
    public void Limits_are_kept_for_each_peer_and_for_all()
    {
        ConnectionLimiter limiter = new(5, 2);
        IDisposable?[] first = [limiter.TryEnter("a"), limiter.TryEnter("a"), limiter.TryEnter("a")];
        Assert.True(first[0] is not null && first[1] is not null && first[2] is null);
        Assert.NotNull(limiter.TryEnter("b"));
        Assert.NotNull(limiter.TryEnter("c"));
        Assert.NotNull(limiter.TryEnter("d"));
        Assert.Null(limiter.TryEnter("e"));
        first[0]!.Dispose();
        first[0]!.Dispose(); // counts once
        Assert.Equal(4, limiter.Count);
        Assert.NotNull(limiter.TryEnter("e"));
        Assert.Null(limiter.TryEnter("f"));
    }

    [Fact]
    public async Task A_peer_whose_handshakes_hang_leaves_turns_to_the_others()
    {
        using HandshakeLimiter limiter = new(4, 2, TimeSpan.FromMilliseconds(50));
        IDisposable[] hanging = [(await limiter.EnterAsync("a", s_none))!, (await limiter.EnterAsync("a", s_none))!];
        Assert.Null(await limiter.EnterAsync("a", s_none));
        IDisposable? other = await limiter.EnterAsync("b", s_none);
        Assert.NotNull(other);
        hanging[0].Dispose();
        hanging[0].Dispose();
        using IDisposable? next = await limiter.EnterAsync("a", s_none);
        Assert.NotNull(next);
        Assert.Null(await limiter.EnterAsync("a", s_none));
    }

    [Theory]
    [InlineData("10.1.2.3", "10.1.2.3")]
    [InlineData("::ffff:10.1.2.3", "10.1.2.3")]
    [InlineData("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64")]
    [InlineData("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64")]
    public void A_peer_is_an_address_or_what_one_host_has_of_them(string address, string key) =>
        Assert.Equal(key, PeerKey.Of(IPAddress.Parse(address)));

    [Fact]
    public void Refusals_are_counted_and_a_few_of_them_are_logged()
    {
        CountingLog log = new();
        Refusals refusals = new(log);
        for (int i = 0; i < 100_000; i++)
        {
            refusals.Count($"10.0.{i % 40}.1", "unauthenticated", "GET /" + new string('x', 8000));
        }

        Assert.Equal(100_000, refusals.Totals["unauthenticated"]);
        Assert.InRange(log.Lines, 1, Refusals.Samples);
        Assert.InRange(log.Characters, 1, Refusals.Samples * 400);
    }

    private sealed class CountingLog : Microsoft.Extensions.Logging.ILogger
    {
        internal int Lines { get; private set; }

        internal int Characters { get; private set; }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(Microsoft.Extensions.Logging.LogLevel logLevel) => true;

        public void Log<TState>(
            Microsoft.Extensions.Logging.LogLevel logLevel,
            Microsoft.Extensions.Logging.EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter)
        {
            Lines++;
            Characters += formatter(state, exception).Length;
        }
    }

    private static async Task EndAsync(Socket socket)
    {
        try
        {
            while (await socket.ReceiveAsync(new byte[256]) > 0)
            {
                // An alert, perhaps.
            }
        }
        catch (SocketException)
        {
            // Reset: an end, too.
        }
    }

    private static async Task<(SslStream Stream, bool Open)> ConnectAsync(DaemonFixture daemon, Authority authority)
    {
        IPEndPoint at = IPEndPoint.Parse(daemon.Host.TlsAddress!.Authority);
        Socket socket = new(SocketType.Stream, ProtocolType.Tcp);
        SslStream stream = new(new MemoryStream());
        try
        {
            await socket.ConnectAsync(at);
            stream = new(new NetworkStream(socket, ownsSocket: true));
            await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = "127.0.0.1",
                CertificateChainPolicy = new X509ChainPolicy
                {
                    TrustMode = X509ChainTrustMode.CustomRootTrust,
                    CustomTrustStore = { authority.Trusted[0] },
                    RevocationMode = X509RevocationMode.NoCheck
                },
            });
            await stream.WriteAsync(Encoding.ASCII.GetBytes("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            return (stream, await stream.ReadAsync(new byte[1024]) > 0);
        }
        catch (Exception e) when (e is IOException or AuthenticationException or SocketException)
        {
            return (stream, false);
        }
    }

    private static async Task<bool> SoonAsync(Func<Task> request)
    {
        for (int i = 0; i < 200; i++)
        {
            try
            {
                await request();
                return true;
            }
            catch (VmmApiException)
            {
                await Task.Delay(50);
            }
        }

        return false;
    }
}
