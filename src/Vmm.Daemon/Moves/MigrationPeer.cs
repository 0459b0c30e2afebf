using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Vmm.Contracts;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Moves;

/// <summary>
/// Another vmmd by its REST interface. Both show a certificate; a link that is dead is noticed within seconds; answers are bounded.
/// </summary>
internal sealed class MigrationPeer : IMigrationPeer
{
    /// <summary>What channels switch to.</summary>
    internal const string Protocol = "vmm-move";

    private const int MostAnswer = 64 << 10, LongestWord = 300;
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(90), s_connect = TimeSpan.FromSeconds(10);

    private readonly Uri _at;
    private readonly SocketsHttpHandler _handler;
    private readonly HttpClient _http;
    private readonly X509Certificate2 _own;

    /// <param name="at">Where it is.</param>
    /// <param name="options">How we know each other; read anew each time, so that certificates may be renewed.</param>
    /// <exception cref="PeerException">A certificate cannot be read.</exception>
    internal MigrationPeer(Uri at, PeerOptions options)
    {
        _at = at;
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
            BaseAddress = new Uri(at, "/api/v1/migrations/"),
            Timeout = s_answer,
            MaxResponseContentBufferSize = MostAnswer,
        };
    }

    /// <inheritdoc/>
    public Task<MigrationInfo> OfferAsync(MigrationOffer offer, CancellationToken cancellation) => AskAsync(
        HttpMethod.Post, "/api/v1/migrations", offer.Id, JsonSerializer.Serialize(offer, RestJson.Default.MigrationOffer), cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> StatusAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Get, id, id, null, cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> CommitAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Post, id + "/commit", id, null, cancellation);

    /// <inheritdoc/>
    public Task<MigrationInfo> AbortAsync(string id, CancellationToken cancellation) =>
        AskAsync(HttpMethod.Delete, id, id, null, cancellation);

    /// <inheritdoc/>
    public async Task<Stream> ChannelAsync(string id, int channel, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, FormattableString.Invariant($"{id}/channels/{channel}"));
        request.Headers.Connection.Add("Upgrade");
        request.Headers.Upgrade.Add(new ProductHeaderValue(Protocol));
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

    private async Task<MigrationInfo> AskAsync(
        HttpMethod method, string path, string id, string? body, CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(method, path);
        request.Content = body is null ? null : new StringContent(body, Encoding.UTF8, "application/json");
        using HttpResponseMessage response = await SendAsync(request, HttpCompletionOption.ResponseContentRead, cancellation)
            .ConfigureAwait(false);
        if (!response.IsSuccessStatusCode)
        {
            throw await RefusalAsync(response, cancellation).ConfigureAwait(false);
        }

        MigrationInfo? info = await ReadAsync(response, RestJson.Default.MigrationInfo, cancellation).ConfigureAwait(false);
        return info is not null && string.Equals(info.Id, id, StringComparison.Ordinal) && Enum.IsDefined(info.State)
            ? info with { Problem = info.Problem is { } problem ? SafeText.Line(problem, LongestWord) : null }
            : throw new PeerException("peer-lies", $"{_at}: what it answers is not about this move");
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
                $"{_at}: {SafeText.Line((cause.InnerException ?? cause).Message, LongestWord)}: is that a vmmd that listens, and does each "
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
            ? $"{_at}: {SafeText.Line(detail, LongestWord)}"
            : $"{_at} answers {(int)response.StatusCode}, which no vmmd says there");
    }

    private async Task<T?> ReadAsync<T>(
        HttpResponseMessage response, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type, CancellationToken cancellation)
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
            throw new PeerException("peer-unreachable", $"{_at}: its answer broke off: {cause.Message}", cause);
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
