using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Security;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Contracts.Rest;

/// <summary>
/// A connection to a daemon. What can be asked for are extension methods, by topic: <see cref="VmRequests"/>,
/// <see cref="DeviceRequests"/>, <see cref="DiskRequests"/>, <see cref="JobRequests"/>, <see cref="EventRequests"/>,
/// <see cref="NumaRequests"/>, <see cref="HostRequests"/>, <see cref="TokenRequests"/>. Errors are <see cref="VmmApiException"/>.
/// </summary>
public sealed class VmmClient : IDisposable
{
    /// <summary>Where the daemon listens unless told otherwise.</summary>
    public const string DefaultSocket = "/run/vmm/vmmd.sock";

    private readonly string _where;
    private readonly SocketsHttpHandler _handler;
    private readonly HttpClient _http;
    private readonly Uri _console = new("ws://vmmd/");

    /// <summary>Talks to the daemon behind a unix socket.</summary>
    /// <param name="socketPath">The socket.</param>
    public VmmClient(string socketPath = DefaultSocket)
    {
        _where = socketPath;
        _handler = new SocketsHttpHandler
        {
            UseProxy = false,
            ConnectCallback = async (_, cancellation) =>
            {
                Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath), cancellation).ConfigureAwait(false);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
        };
        // a guest may be waited for ten
        _http = new HttpClient(_handler) { BaseAddress = new Uri("http://vmmd/api/v1/"), Timeout = TimeSpan.FromMinutes(11) };
    }

    /// <summary>Talks to the daemon of another machine.</summary>
    /// <param name="server">Its <c>https</c> address.</param>
    /// <param name="token">An access token; null is none.</param>
    /// <param name="certificate">A client certificate with its key; null is none.</param>
    /// <param name="authorities">Who may have signed the server's certificate; null trusts what this machine trusts.</param>
    public VmmClient(Uri server, string? token, X509Certificate2? certificate, X509Certificate2Collection? authorities)
    {
        _where = server.ToString();
        _handler = new SocketsHttpHandler { UseProxy = false, ConnectTimeout = TimeSpan.FromSeconds(15) };
        if (certificate is not null)
        {
            // fetches nothing from where the certificate says
            _handler.SslOptions.ClientCertificateContext = SslStreamCertificateContext.Create(certificate, null, offline: true);
        }

        if (authorities is not null)
        {
            _handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
                DisableCertificateDownloads = true
            };
            _handler.SslOptions.CertificateChainPolicy.CustomTrustStore.AddRange(authorities);
        }

        _console = new UriBuilder(server) { Scheme = "wss" }.Uri;
        _http = new HttpClient(_handler) { BaseAddress = new Uri(server, "/api/v1/"), Timeout = TimeSpan.FromMinutes(11) };
        if (token is not null)
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        }
    }

    /// <summary>The path of a VM.</summary>
    internal static string Vm(string name) => "vms/" + Uri.EscapeDataString(name);

    /// <summary>Asks for what is answered with a record.</summary>
    /// <param name="method">The method.</param>
    /// <param name="path">Behind <c>/api/v1/</c>.</param>
    /// <param name="body">YAML or JSON; null is none.</param>
    /// <param name="type">The answer.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <param name="revision">What is asked for holds only for that revision; null: for whichever there is.</param>
    /// <exception cref="VmmApiException">It is refused, or nobody answers.</exception>
    internal async Task<T> AskAsync<T>(
        HttpMethod method, string path, string? body, JsonTypeInfo<T> type, CancellationToken cancellation, long? revision = null)
    {
        using HttpResponseMessage response = await ExchangeAsync(method, path, body, revision, cancellation).ConfigureAwait(false);
        return await ReadAsync(response, type, cancellation).ConfigureAwait(false);
    }

    /// <summary>Asks for what is answered with text.</summary>
    internal async Task<string> AskTextAsync(string path, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(HttpMethod.Get, path, null, null, cancellation).ConfigureAwait(false);
        return await response.Content.ReadAsStringAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Asks for what is answered with nothing but that it is done.</summary>
    internal async Task TellAsync(HttpMethod method, string path, string? body, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(method, path, body, null, cancellation).ConfigureAwait(false);
    }

    /// <summary>The record in an answer.</summary>
    internal async Task<T> ReadAsync<T>(HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancellation)
    {
        try
        {
            return await response.Content.ReadFromJsonAsync(type, cancellation).ConfigureAwait(false) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new VmmApiException("bad-answer", $"{_where}: the answer is not what a vmmd of this version says: {e.Message}", e);
        }
    }

    /// <summary>Sends a request; the answer says that it was done.</summary>
    internal async Task<HttpResponseMessage> SendAsync(
        HttpRequestMessage request, HttpCompletionOption completion, CancellationToken cancellation)
    {
        HttpResponseMessage response;
        try
        {
            response = await _http.SendAsync(request, completion, cancellation).ConfigureAwait(false);
        }
        catch (HttpRequestException e)
        {
            throw new VmmApiException(
                "daemon-unreachable", e.InnerException is SocketException { SocketErrorCode: SocketError.AccessDenied }
                    ? $"{_where}: permission denied: run as root or join the group that owns the socket"
                    : e.InnerException is AuthenticationException tls
                        ? $"{_where}: no secure connection: {tls.Message}: is its certificate signed by the authority you gave?"
                    : $"{_where}: no vmmd answers there: start it with 'systemctl start vmmd' or name another socket with --host", e);
        }

        if (response.IsSuccessStatusCode)
        {
            return response;
        }

        using (response)
        {
            throw new VmmApiException(await ProblemOf(response, cancellation).ConfigureAwait(false));
        }
    }

    /// <summary>A web socket.</summary>
    /// <param name="path">Behind <c>/api/v1/</c>.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="WebSocketException">There is none.</exception>
    internal async Task<WebSocket> ConnectAsync(string path, CancellationToken cancellation)
    {
        ClientWebSocket socket = new();
        try
        {
            using HttpMessageInvoker invoker = new(_handler, disposeHandler: false);
            if (_http.DefaultRequestHeaders.Authorization is { } token)
            {
                socket.Options.SetRequestHeader("Authorization", token.ToString());
            }

            await socket.ConnectAsync(new Uri(_console, "/api/v1/" + path), invoker, cancellation).ConfigureAwait(false);
            return socket;
        }
        catch (WebSocketException)
        {
            socket.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _http.Dispose();
        _handler.Dispose();
    }

    private async Task<HttpResponseMessage> ExchangeAsync(
        HttpMethod method, string path, string? body, long? revision, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(method, path);
        request.Content = body is null ? null : new StringContent(body, Encoding.UTF8, "application/yaml"); // JSON is YAML
        if (revision is { } number)
        {
            request.Headers.TryAddWithoutValidation("If-Match", $"\"{number}\"");
        }

        return await SendAsync(request, HttpCompletionOption.ResponseContentRead, cancellation).ConfigureAwait(false);
    }

    private static async Task<Problem> ProblemOf(HttpResponseMessage response, CancellationToken cancellation)
    {
        try
        {
            if (await response.Content.ReadFromJsonAsync(RestJson.Default.Problem, cancellation).ConfigureAwait(false) is { } problem)
            {
                return problem;
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // Not ours: a proxy's error page, or the web server's own refusal.
        }

        return new Problem((int)response.StatusCode, "http-" + (int)response.StatusCode, response.StatusCode.ToString(),
            response.StatusCode == HttpStatusCode.RequestEntityTooLarge
                ? "the request is too large"
                : $"the daemon answered {(int)response.StatusCode} {response.ReasonPhrase}");
    }
}
