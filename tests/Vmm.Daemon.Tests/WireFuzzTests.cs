using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.WebUtilities;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Bytes of every kind where a client can send them: queries, the HTTP stream, the TLS handshake. Each is answered or ended, and leaves
/// nothing behind.
/// </summary>
[Collection("resources")]
[Trait("Kind", "fuzz")]
public sealed class WireFuzzTests
{
    private const long MostAnswered = 4 << 20;

    private static readonly string[] s_values =
    [
        "", "0", "1", "600", "601", "-1", "+1", "1e1", "00000000000000000000001", "4294967296", "9223372036854775808", "true", "false",
        "True", "TRUE", "yes", "%00", "%", "%zz", "%ff", "%E2%80%AE", "/tmp", "/tmp/%2e%2e", "tmp", "..", "a%26b", "a=b", "%0d%0aX:1", ";",
    ];

    private static readonly string[] s_requests =
    [
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /api/v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n\r\n",
        "GET /api/v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\n\r\n",
        "POST /api/v1/vms?folder=/tmp HTTP/1.1\r\nHost: x\r\nContent-Type: application/yaml\r\nContent-Length: 8\r\n\r\nname: a\n",
        "POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: "
        + "chunked\r\n\r\n5\r\n{\"nam\r\n3\r\ne\":\r\n0\r\n\r\n",
        "POST /api/v1/vms/a/stop?graceful=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nPrefer: respond-async\r\n\r\n",
        "GET /api/v1/vms/a/console HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
        + "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "PUT /api/v1/vms/a HTTP/1.1\r\nHost: x\r\nIf-Match: \"1\"\r\nExpect: 100-continue\r\nContent-Type: "
        + "application/yaml\r\nContent-Length: 9\r\n\r\nname: a\n\n",
    ];

    private static readonly string[] s_pieces =
    [
        "\r\n", "\n", "\r", "\0", " ", "\t", ":", "\r\n\r\n", "\r\n ", "Content-Length: 5\r\n", "Content-Length: -1\r\n",
        "Content-Length: 99999999999999999999\r\n", "Content-Length: 1048577\r\n", "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: gzip\r\n", "ffffffffffffffff\r\n", "-1\r\n", "0;x=y\r\n",
        "0\r\n\r\n", "Host: \r\n", "Host: a\r\nHost: b\r\n", "HTTP/9.9", "HTTP/1.0", "HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "http://evil/", "*", "CONNECT a:1",
        "%00", "%2e%2e%2f", "//", "?", "#", "&", "Expect: 100-continue\r\n", "Connection: close\r\n", "Upgrade: h2c\r\n",
        "Origin: null\r\n", "Cookie: a=b\r\n", "X: " + new string('y', 9000) + "\r\n", string.Concat(Enumerable.Repeat("A: b\r\n", 120)),
        new string('/', 9000), "\u00e9", "\ud83d\ude00",
    ];

    [Fact]
    public async Task Any_query_of_any_route_is_taken_as_declared_or_refused_by_name()
    {
        await using DaemonFixture daemon = await StartAsync();
        RouteEndpoint[] routes = StrictInputTests.Routes(daemon);
        ResourceOracle oracle = ResourceOracle.Begin(daemon);
        using HttpClient http = ApiTests.Raw(daemon);
        http.Timeout = ResourceOracle.Deadline;
        int inputs = Inputs(600, 100_000), sound = 0, refused = 0;
        for (int i = 0; i < inputs; i++)
        {
            Random random = new(i);
            RouteEndpoint route = routes[random.Next(routes.Length)];
            (HttpMethod method, string path) = StrictInputTests.Target(route);
            QueryParameter[] known = [.. route.Metadata.GetOrderedMetadata<QueryParameter>()];
            string query = Query(random, known);
            using HttpRequestMessage request = new(method,
                new Uri("http://vmmd" + path + query, new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true }));
            using HttpResponseMessage response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            int status = (int)response.StatusCode;
            Problem? problem = status < 400
                ? null
                : JsonSerializer.Deserialize(await response.Content.ReadAsStringAsync(), RestJson.Default.Problem);
            bool wellFormed = QueryHelpers.ParseQuery(query).All(p => p.Value.Count == 1
                && Array.Find(known, k => string.Equals(k.Name, p.Key, StringComparison.Ordinal)) is { } parameter
                && IsSound(parameter, p.Value[0] ?? ""));
            bool byName = problem is { Code: "bad-request", Errors: [_] };
            Assert.True(
                status < 500 && (wellFormed ? !byName || !problem!.Detail.Contains("unknown parameter", StringComparison.Ordinal) : byName),
                $"input {i}: {method} {path}{query}: {status} {problem?.Detail}");
            (sound, refused) = wellFormed ? (sound + 1, refused) : (sound, refused + 1);
        }

        Assert.True(sound > inputs / 20 && refused > inputs / 20, $"{sound} sound, {refused} not");
        await oracle.EndAsync(auditBytes: inputs * 1200L, logBytes: inputs * 600L);
    }

    [Fact]
    public async Task Any_bytes_on_the_unix_socket_are_answered_or_ended()
    {
        await using DaemonFixture daemon = await StartAsync();
        await HttpAsync(daemon, async () =>
        {
            Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(daemon.Options.SocketPath));
            return (socket, new NetworkStream(socket, ownsSocket: true));
        }, Inputs(1500, 100_000));
    }

    [Fact]
    public async Task Any_bytes_inside_of_tls_are_answered_or_ended()
    {
        using Authority ours = new("ours");
        using X509Certificate2 admin = ours.Client("admin");
        await using DaemonFixture daemon = await StartAsync(folder => ours.Options(folder, ("admin", Role.Admin, admin)));
        await HttpAsync(daemon, async () =>
        {
            Socket socket = Connect(daemon);
            SslStream stream = new(new NetworkStream(socket, ownsSocket: true));
            await stream.AuthenticateAsClientAsync(Client(ours, admin));
            return (socket, stream);
        }, Inputs(100, 20_000));
    }

    [Fact]
    public async Task Any_bytes_of_a_handshake_end_and_a_good_one_still_works()
    {
        using Authority ours = new("ours");
        using X509Certificate2 admin = ours.Client("admin"), stranger = ours.Client("stranger");
        await using DaemonFixture daemon = await StartAsync(folder => ours.Options(folder, ("admin", Role.Admin, admin)));
        byte[] hello = await HelloAsync(ours, admin);
        ResourceOracle oracle = ResourceOracle.Begin(daemon);
        int inputs = Inputs(150, 50_000);
        await Parallel.ForAsync(0, inputs, new ParallelOptions { MaxDegreeOfParallelism = 4 }, async (i, cancellation) =>
        {
            Random random = new(i);
            using Socket socket = Connect(daemon);
            if (i % 3 == 0)
            {
                await EndsAsync(socket, new NetworkStream(socket), Mutated(random, hello), random, $"input {i}");
                return;
            }

            // A true client whose bytes are changed on the way: as far as the certificate and the end of the handshake.
            using SslStream stream = new(new MutatingStream(new NetworkStream(socket), random));
            try
            {
                await stream.AuthenticateAsClientAsync(Client(ours, i % 2 == 0 ? admin : stranger), cancellation)
                    .WaitAsync(ResourceOracle.Deadline, cancellation);
                await stream.WriteAsync("GET /api/v1/vms HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"u8.ToArray(), cancellation);
                _ = await stream.ReadAsync(new byte[4096], cancellation).AsTask().WaitAsync(TimeSpan.FromSeconds(1), cancellation);
            }
            catch (TimeoutException) when (stream.IsAuthenticated)
            {
                // Half a record: the daemon waits for the rest of it as long as for any request, and the client leaves.
            }
            catch (Exception e) when (e is IOException or AuthenticationException or SocketException)
            {
                // Refused, as most are.
            }
        });

        using VmmClient client = new(daemon.Host.TlsAddress!, null, admin, ours.Trusted);
        Assert.Empty((await client.ListAsync(CancellationToken.None)).Vms);
        await oracle.EndAsync(auditBytes: 0, logBytes: 64 << 10); // nobody was anybody
    }

    private static Task<DaemonFixture> StartAsync(Func<string, DaemonOptions>? options = null) =>
        DaemonFixture.StartAsync(folder => ResourceOracle.Logged(options?.Invoke(folder) ?? new DaemonOptions(), folder));

    private static int Inputs(int few, int most) =>
        int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int wanted) ? Math.Min(wanted, most) : few;

    private static async Task HttpAsync(DaemonFixture daemon, Func<Task<(Socket Socket, Stream Stream)>> connect, int inputs)
    {
        ResourceOracle oracle = ResourceOracle.Begin(daemon);
        await Parallel.ForAsync(0, inputs, new ParallelOptions { MaxDegreeOfParallelism = 4 }, async (i, cancellation) =>
        {
            Random random = new(i);
            (Socket socket, Stream stream) = await connect();
            await using (stream)
            {
                string said = await EndsAsync(socket, stream, Request(random), random, $"input {i}");
                Assert.True(said.Length == 0 || said.StartsWith("HTTP/1.", StringComparison.Ordinal), $"input {i}: {said}");
                // 505 is the web server's: another version of HTTP.
                Assert.True(said.Length < 12 || said[9] is not '5' || said.AsSpan(9, 3) is "505", $"input {i}: {said}");
            }
        });

        await oracle.EndAsync(auditBytes: inputs * 1600L, logBytes: inputs * 1200L);
    }

    /// <summary>Sends in pieces, says that there is no more, and reads until the daemon ends it too.</summary>
    private static async Task<string> EndsAsync(Socket socket, Stream stream, byte[] bytes, Random random, string input)
    {
        using CancellationTokenSource deadline = new(ResourceOracle.Deadline);
        StringBuilder said = new();
        long count = 0;
        try
        {
            for (int at = 0; at < bytes.Length;)
            {
                int piece = random.Next(4) == 0 ? random.Next(1, 20) : bytes.Length;
                piece = Math.Min(piece, bytes.Length - at);
                await stream.WriteAsync(bytes.AsMemory(at, piece), deadline.Token);
                at += piece;
            }

            if (stream is SslStream tls)
            {
                await tls.ShutdownAsync();
            }

            socket.Shutdown(SocketShutdown.Send);
            byte[] buffer = new byte[16 << 10];
            for (int got; (got = await stream.ReadAsync(buffer, deadline.Token)) > 0; count += got)
            {
                said.Append(Encoding.Latin1.GetString(buffer, 0, said.Length < 4096 ? got : 0));
                Assert.True(count < MostAnswered, $"{input}: more than {MostAnswered} bytes of answer");
            }
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            // Reset: an end, too.
        }
        catch (OperationCanceledException)
        {
            Assert.Fail($"{input} does not end: {Convert.ToBase64String(bytes)}");
        }

        return said.ToString();
    }

    private static string Query(Random random, QueryParameter[] known)
    {
        string[] parts = [.. Enumerable.Range(0, random.Next(4)).Select(_ =>
        {
            string name = known.Length > 0 && random.Next(5) > 0
                ? known[random.Next(known.Length)].Name
                : new[] { "x", "", "Timeout", "force%20", "grace%66ul", "a[]", new string('n', 3000) }[random.Next(7)];
            return random.Next(10) == 0 ? name : $"{name}={s_values[random.Next(s_values.Length)]}";
        })];
        return parts.Length == 0 ? "" : "?" + string.Join(random.Next(10) == 0 ? "&&" : "&", parts);
    }

    private static bool IsSound(QueryParameter parameter, string value) => parameter.Type switch
    {
        "integer" => value.Length > 0 && value.All(char.IsAsciiDigit)
            && System.Numerics.BigInteger.Parse(value, System.Globalization.CultureInfo.InvariantCulture) <= parameter.Most,
        "boolean" => value is "true" or "false",
        _ => true,
    };

    private static byte[] Request(Random random)
    {
        string text = string.Concat(Enumerable.Range(0, random.Next(1, 4)).Select(_ => s_requests[random.Next(s_requests.Length)]));
        for (int changes = random.Next(0, 4); changes > 0; changes--)
        {
            text = text.Insert(random.Next(text.Length), s_pieces[random.Next(s_pieces.Length)]);
        }

        byte[] bytes = Encoding.UTF8.GetBytes(text);
        return random.Next(3) == 0 ? Mutated(random, bytes) : bytes;
    }

    private static byte[] Mutated(Random random, byte[] seed)
    {
        byte[] bytes = (byte[])seed.Clone();
        switch (random.Next(5))
        {
            case 0:
                random.NextBytes(bytes);
                return bytes;
            case 1:
                return bytes[..random.Next(bytes.Length)];
            case 2:
                int from = random.Next(bytes.Length);
                return [.. bytes, .. bytes[from..], .. bytes];
            default:
                for (int flips = random.Next(1, 8); flips > 0; flips--)
                {
                    bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                }

                return bytes;
        }
    }

    private static Socket Connect(DaemonFixture daemon)
    {
        Socket socket = new(SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(IPEndPoint.Parse(daemon.Host.TlsAddress!.Authority));
        return socket;
    }

    private static SslClientAuthenticationOptions Client(Authority authority, X509Certificate2 certificate) => new()
    {
        TargetHost = "127.0.0.1",
        ClientCertificateContext = SslStreamCertificateContext.Create(certificate, null, offline: true),
        CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { authority.Trusted[0] }
        },
    };

    /// <summary>The first message of a true client.</summary>
    private static async Task<byte[]> HelloAsync(Authority authority, X509Certificate2 certificate)
    {
        using MemoryStream sent = new();
        using SslStream stream = new(new OneWayStream(sent));
        await Assert.ThrowsAnyAsync<Exception>(() => stream.AuthenticateAsClientAsync(Client(authority, certificate)));
        return sent.ToArray();
    }

    private sealed class OneWayStream(MemoryStream sent) : PassingStream(sent)
    {
        public override int Read(byte[] buffer, int offset, int count) => 0;

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            ValueTask.FromResult(0);
    }

    /// <summary>Changes a byte of what is written now and then.</summary>
    private sealed class MutatingStream(Stream inner, Random random) : PassingStream(inner)
    {
        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            byte[] bytes = buffer.ToArray();
            if (random.Next(2) == 0 && bytes.Length > 0)
            {
                bytes[random.Next(bytes.Length)] ^= (byte)random.Next(1, 256);
            }

            await Inner.WriteAsync(random.Next(8) == 0 ? bytes.AsMemory(0, random.Next(bytes.Length)) : bytes, cancellationToken);
        }
    }

    private class PassingStream(Stream inner) : Stream
    {
        protected Stream Inner => inner;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override void Flush() => inner.Flush();

        public override int Read(byte[] buffer, int offset, int count) => inner.Read(buffer, offset, count);

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            inner.ReadAsync(buffer, cancellationToken);

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => inner.Write(buffer, offset, count);

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            inner.WriteAsync(buffer, cancellationToken);

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                inner.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}
