using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Moves;

/// <summary>
/// A connection to another vmmd's REST interface. Both show a certificate; a link that is dead is noticed within seconds; answers are
/// bounded, and each failure is a <see cref="PeerException"/>.
/// </summary>
internal sealed class PeerConnection : IDisposable
{
    private const int LongestWord = 300;
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(90), s_connect = TimeSpan.FromSeconds(10);

    private readonly SocketsHttpHandler _handler;
    private readonly HttpClient _http;
    private readonly X509Certificate2 _own;

    /// <param name="at">Where it is.</param>
    /// <param name="options">How we know each other; read anew each time, so that certificates may be renewed.</param>
    /// <param name="paths">What the paths of requests are behind, such as <c>/api/v1/migrations/</c>.</param>
    /// <param name="mostAnswer">Most bytes of an answer.</param>
    /// <exception cref="PeerException">A certificate cannot be read.</exception>
    internal PeerConnection(Uri at, PeerOptions options, string paths, int mostAnswer)
    {
        At = at;
        X509Certificate2Collection chain = [], authorities = [];
        try
        {
            chain.ImportFromPemFile(options.Certificate);
            authorities.ImportFromPemFile(options.Authority);
            _own = X509Certificate2.CreateFromPemFile(options.Certificate, options.Key);
        }
        catch (Exception cause) when (cause is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new PeerException("peers-unset",
                $"peers: certificate {options.Certificate}, key {options.Key} or ca {options.Authority} cannot be used: {cause.Message}",
                cause);
        }

        _handler = new SocketsHttpHandler
        {
            UseProxy = false,
            AllowAutoRedirect = false,
            ConnectTimeout = s_connect,
            ConnectCallback = ConnectAsync,
            SslOptions =
            {
                ClientCertificateContext = SslStreamCertificateContext.Create(_own, chain, offline: true),
                CertificateChainPolicy = new X509ChainPolicy
                {
                    TrustMode = X509ChainTrustMode.CustomRootTrust,
                    RevocationMode = X509RevocationMode.NoCheck,
                    DisableCertificateDownloads = true,
                },
            },
        };
        _handler.SslOptions.CertificateChainPolicy.CustomTrustStore.AddRange(authorities);
        _http = new HttpClient(_handler)
        {
            BaseAddress = new Uri(at, paths),
            Timeout = s_answer,
            MaxResponseContentBufferSize = mostAnswer,
        };
    }

    /// <summary>Where it is.</summary>
    internal Uri At { get; }

    /// <summary>One line of what the other one says, for people; null is null.</summary>
    internal static string? Word(string? said) => said is null ? null : SafeText.Line(said, LongestWord);

    /// <summary>Asks for what is answered with a record.</summary>
    /// <param name="method">The method.</param>
    /// <param name="path">The path.</param>
    /// <param name="body">JSON; null is none.</param>
    /// <param name="type">The answer.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <returns>The answer; null: it is none.</returns>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    internal Task<T?> AskAsync<T>(
        HttpMethod method, string path, string? body, JsonTypeInfo<T> type, CancellationToken cancellation)
        where T : class =>
        AskAsync(method, path, body is null ? null : new StringContent(body, Encoding.UTF8, "application/json"), type, cancellation);

    /// <inheritdoc cref="AskAsync{T}(HttpMethod, string, string?, JsonTypeInfo{T}, CancellationToken)"/>
    internal async Task<T?> AskAsync<T>(
        HttpMethod method, string path, HttpContent? body, JsonTypeInfo<T> type, CancellationToken cancellation)
        where T : class
    {
        using HttpRequestMessage request = new(method, path) { Content = body };
        using HttpResponseMessage response = await SendAsync(request, HttpCompletionOption.ResponseContentRead, cancellation)
            .ConfigureAwait(false);
        return response.IsSuccessStatusCode
            ? await ReadAsync(response, type, cancellation).ConfigureAwait(false)
            : throw await RefusalAsync(response, cancellation).ConfigureAwait(false);
    }

    /// <summary>Tells something whose answer has no content, or none that counts.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    internal async Task TellAsync(HttpMethod method, string path, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(method, path);
        using HttpResponseMessage response = await SendAsync(request, HttpCompletionOption.ResponseContentRead, cancellation)
            .ConfigureAwait(false);
        if (!response.IsSuccessStatusCode)
        {
            throw await RefusalAsync(response, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Asks for octets.</summary>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    internal async Task<byte[]> BytesAsync(string path, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, path);
        using HttpResponseMessage response = await SendAsync(request, HttpCompletionOption.ResponseContentRead, cancellation)
            .ConfigureAwait(false);
        return response.IsSuccessStatusCode
            ? await response.Content.ReadAsByteArrayAsync(cancellation).ConfigureAwait(false)
            : throw await RefusalAsync(response, cancellation).ConfigureAwait(false);
    }

    /// <summary>Asks for a connection of another protocol.</summary>
    /// <param name="path">The path.</param>
    /// <param name="protocol">The protocol.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="PeerException">It refuses, or does not answer.</exception>
    internal async Task<Stream> UpgradeAsync(string path, string protocol, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, path);
        request.Headers.Connection.Add("Upgrade");
        request.Headers.Upgrade.Add(new ProductHeaderValue(protocol));
        HttpResponseMessage response = await SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellation)
            .ConfigureAwait(false);
        if (response.StatusCode == System.Net.HttpStatusCode.SwitchingProtocols)
        {
            return await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false); // ends the response with itself
        }

        using (response)
        {
            throw await RefusalAsync(response, cancellation).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _http.Dispose();
        _handler.Dispose();
        _own.Dispose();
    }

    private async Task<HttpResponseMessage> SendAsync(
        HttpRequestMessage request, HttpCompletionOption completion, CancellationToken cancellation)
    {
        try
        {
            return await _http.SendAsync(request, completion, cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is HttpRequestException
            || (cause is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw new PeerException("peer-unreachable",
                $"{At}: {SafeText.Line((cause.InnerException ?? cause).Message, LongestWord)}: is that a vmmd that listens, and does each "
                    + "trust the other's certificate (peers in vmmd.yaml)?", cause);
        }
    }

    private async Task<PeerException> RefusalAsync(HttpResponseMessage response, CancellationToken cancellation)
    {
        Problem? problem = response.IsSuccessStatusCode ? null
            : await ReadAsync(response, RestJson.Default.Problem, cancellation).ConfigureAwait(false);
        string code = problem?.Code is { Length: > 0 and <= 40 } said && said.All(c => char.IsAsciiLetterOrDigit(c) || c == '-')
            ? said
            : "peer-lies";
        return new PeerException(code, problem?.Detail is { } detail
            ? $"{At}: {SafeText.Line(detail, LongestWord)}"
            : $"{At} answers {(int)response.StatusCode}, which no vmmd says there");
    }

    private async Task<T?> ReadAsync<T>(
        HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancellation)
        where T : class
    {
        try
        {
            using Stream content = await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
            return await JsonSerializer.DeserializeAsync(content, type, cancellation).ConfigureAwait(false);
        }
        catch (JsonException)
        {
            return null;
        }
        catch (Exception cause) when (cause is HttpRequestException or IOException)
        {
            throw new PeerException("peer-unreachable", $"{At}: its answer broke off: {cause.Message}", cause);
        }
    }

    private static async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellation)
    {
        Socket socket = new(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            DeadLinks.Notice(socket);
            await socket.ConnectAsync(context.DnsEndPoint, cancellation).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
