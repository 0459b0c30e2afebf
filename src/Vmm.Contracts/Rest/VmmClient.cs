using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.Security;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Runtime.CompilerServices;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>The daemon's REST interface as methods. Errors are <see cref="VmmApiException"/>.</summary>
public sealed partial class VmmClient : IDisposable
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

    /// <summary>All VMs.</summary>
    public Task<VmList> ListAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "vms", null, RestJson.Default.VmList, cancellation);

    /// <summary>One VM.</summary>
    public Task<VmInfo> ShowAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name), null, RestJson.Default.VmInfo, cancellation);

    /// <summary>Creates a VM from a YAML spec; <paramref name="folder"/> is what relative paths in it are relative to.</summary>
    public Task<VmInfo> CreateAsync(string yaml, string folder, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Post, "vms?folder=" + Uri.EscapeDataString(folder), yaml, RestJson.Default.VmInfo, cancellation);

    /// <summary>
    /// Replaces the spec of a VM that does not run, when its revision is still <paramref name="revision"/> (null: whatever it is).
    /// </summary>
    public Task<VmInfo> ReplaceAsync(string name, string yaml, string folder, long? revision, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Put, Vm(name) + "?folder=" + Uri.EscapeDataString(folder), yaml, RestJson.Default.VmInfo, cancellation, revision);

    /// <summary>Forgets a VM that does not run.</summary>
    public async Task DeleteAsync(string name, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(
            HttpMethod.Delete, Vm(name), null, null, cancellation).ConfigureAwait(false);
    }

    /// <summary>Does one of <c>start stop pause resume power-button wake</c> and answers when it is done.</summary>
    public Task<VmInfo> DoAsync(string name, string verb, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Post, Vm(name) + "/" + verb, null, RestJson.Default.VmInfo, cancellation);

    /// <summary>Presses the power button, waits so long for the guest, then pulls the plug.</summary>
    public Task<VmInfo> StopAsync(string name, TimeSpan graceful, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Post,
            Vm(name) + "/stop?graceful=" + ((int)graceful.TotalSeconds).ToString(CultureInfo.InvariantCulture),
            null,
            RestJson.Default.VmInfo,
            cancellation);

    /// <summary>What the daemon remembers about a VM.</summary>
    public Task<EventList> EventsOfAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/events", null, RestJson.Default.EventList, cancellation);

    /// <summary>
    /// What happens from now on, or from behind the event numbered <paramref name="after"/>. Ends when the daemon lets go; an event of kind
    /// <c>gap</c> says that some are missing.
    /// </summary>
    public async IAsyncEnumerable<DaemonEvent> EventsAsync(long? after, [EnumeratorCancellation] CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, "events");
        if (after is { } id)
        {
            request.Headers.Add("Last-Event-ID", id.ToString(CultureInfo.InvariantCulture));
        }

        using HttpResponseMessage response = await SendAsync(
            request, HttpCompletionOption.ResponseHeadersRead, cancellation).ConfigureAwait(false);
        await using Stream body = await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
        using StreamReader reader = new(body);
        bool gap = false;
        while (await reader.ReadLineAsync(cancellation).ConfigureAwait(false) is { } line)
        {
            gap |= line is "event: gap";
            if (line.StartsWith("data: ", StringComparison.Ordinal))
            {
                yield return gap
                    ? new DaemonEvent(0, DateTimeOffset.UtcNow, "gap", "", null, null, "some events are missing")
                    : JsonSerializer.Deserialize(line.AsSpan(6), RestJson.Default.DaemonEvent)!;
                gap = false;
            }
        }
    }

    /// <summary>The spec as it was given.</summary>
    public async Task<string> SpecAsync(string name, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(
            HttpMethod.Get, Vm(name) + "/spec", null, null, cancellation).ConfigureAwait(false);
        return await response.Content.ReadAsStringAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Counters of a running VM.</summary>
    public Task<WorkerStats> StatsAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/stats", null, RestJson.Default.WorkerStats, cancellation);

    /// <summary>The memory of a running VM.</summary>
    public Task<VmMemory> MemoryAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/memory", null, RestJson.Default.VmMemory, cancellation);

    /// <summary>
    /// Changes what memory a running VM shall have, and waits at most <paramref name="patience"/> for the guest; the answer says how far it
    /// came.
    /// </summary>
    public Task<VmMemory> ChangeMemoryAsync(string name, MemoryWish wish, TimeSpan patience, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Put,
            Vm(name) + "/memory?timeout=" + ((int)patience.TotalSeconds).ToString(CultureInfo.InvariantCulture),
            JsonSerializer.Serialize(wish, RestJson.Default.MemoryWish),
            RestJson.Default.VmMemory,
            cancellation);

    /// <summary>Makes an access token.</summary>
    public Task<NewToken> CreateTokenAsync(TokenWish wish, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Post, "tokens", JsonSerializer.Serialize(wish, RestJson.Default.TokenWish), RestJson.Default.NewToken, cancellation);

    /// <summary>All access tokens.</summary>
    public Task<TokenList> TokensAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "tokens", null, RestJson.Default.TokenList, cancellation);

    /// <summary>Makes an access token open nothing from now on.</summary>
    public async Task DeleteTokenAsync(string id, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(
            HttpMethod.Delete, "tokens/" + Uri.EscapeDataString(id), null, null, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// Changes the rate limits of a running VM's device (<c>disk0</c>, <c>net1</c>) until its next start, which takes those of the spec.
    /// </summary>
    public async Task LimitAsync(string name, string device, DeviceLimits limits, CancellationToken cancellation)
    {
        using HttpResponseMessage response = await ExchangeAsync(
            HttpMethod.Put, Vm(name) + "/devices/" + Uri.EscapeDataString(device) + "/limits",
            JsonSerializer.Serialize(limits, RestJson.Default.DeviceLimits), null, cancellation).ConfigureAwait(false);
    }

    /// <summary>A VM's time on host CPUs.</summary>
    public Task<VmCpu> CpuAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/cpu", null, RestJson.Default.VmCpu, cancellation);

    /// <summary>
    /// Changes a running VM's time on host CPUs until its next start, which takes what the spec says; what is null is not limited.
    /// </summary>
    public Task<VmCpu> LimitCpuAsync(string name, CpuLimits limits, CancellationToken cancellation, long? revision = null) =>
        SendAsync(
            HttpMethod.Put,
            Vm(name) + "/cpu",
            JsonSerializer.Serialize(limits, RestJson.Default.CpuLimits),
            RestJson.Default.VmCpu,
            cancellation,
            revision);

    /// <summary>Disks and network devices of a VM.</summary>
    public Task<DeviceList> DevicesAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/devices", null, RestJson.Default.DeviceList, cancellation);

    /// <summary>Adds a device, also while the VM runs.</summary>
    /// <param name="name">The VM.</param>
    /// <param name="list"><c>disks</c> or <c>nets</c>.</param>
    /// <param name="yaml">An entry of that list of a spec.</param>
    /// <param name="stay">It is in the stored spec, too.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    public Task<DeviceInfo> AttachAsync(string name, string list, string yaml, bool stay, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Post, $"{Vm(name)}/{list}?persistent={(stay ? "true" : "false")}", yaml, RestJson.Default.DeviceInfo, cancellation);

    /// <summary>
    /// Removes a device, also while the VM runs: the guest has so long to let go of it, then it is taken (force) or stays.
    /// </summary>
    public Task<RemovalBody> DetachAsync(
        string name, string device, TimeSpan patience, bool force, bool forGood, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Delete,
            string.Create(
                CultureInfo.InvariantCulture,
                $"{Vm(name)}/devices/{Uri.EscapeDataString(device)}?timeout={(int)patience.TotalSeconds}&force="
                    + $"{(force ? "true" : "false")}&persistent={(forGood ? "true" : "false")}"),
            null, RestJson.Default.RemovalBody, cancellation);

    /// <summary>The daemon's host.</summary>
    public Task<HostInfo> HostAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "host", null, RestJson.Default.HostInfo, cancellation);

    /// <summary>What the daemon logs.</summary>
    public Task<LogSettings> LogAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "log", null, RestJson.Default.LogSettings, cancellation);

    /// <summary>Changes what the daemon logs, until its next start.</summary>
    public Task<LogSettings> SetLogAsync(LogSettings settings, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Put, "log", JsonSerializer.Serialize(settings, RestJson.Default.LogSettings), RestJson.Default.LogSettings,
            cancellation);

    /// <summary>
    /// A running VM's console: binary messages both ways; a text message, a <see cref="Control.ConsoleSize"/>, tells the size of the
    /// terminal.
    /// </summary>
    public async Task<WebSocket> ConsoleAsync(string name, CancellationToken cancellation)
    {
        _ = await ShowAsync(name, cancellation).ConfigureAwait(false); // an unknown VM is a clear error, a failed upgrade is not
        ClientWebSocket socket = new();
        try
        {
            using HttpMessageInvoker invoker = new(_handler, disposeHandler: false);
            if (_http.DefaultRequestHeaders.Authorization is { } token)
            {
                socket.Options.SetRequestHeader("Authorization", token.ToString());
            }

            await socket.ConnectAsync(new Uri(_console, "/api/v1/" + Vm(name) + "/console"), invoker, cancellation).ConfigureAwait(false);
            return socket;
        }
        catch (WebSocketException e)
        {
            socket.Dispose();
            VmState state = (await ShowAsync(name, cancellation).ConfigureAwait(false)).State;
            throw new VmmApiException("console-refused", state is VmState.Running or VmState.Paused or VmState.Crashed
                ? $"{name}: the daemon gave no console: {e.Message}"
                : $"{name} has no console now: it is {state.ToString().ToLowerInvariant()}: start it with 'vmmctl vm start {name}'", e);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _http.Dispose();
        _handler.Dispose();
    }

    private static string Vm(string name) => "vms/" + Uri.EscapeDataString(name);

    private async Task<T> SendAsync<T>(
        HttpMethod method, string path, string? body, JsonTypeInfo<T> type, CancellationToken cancellation, long? revision = null)
    {
        using HttpResponseMessage response = await ExchangeAsync(method, path, body, revision, cancellation).ConfigureAwait(false);
        return await ReadAsync(response, type, cancellation).ConfigureAwait(false);
    }

    private async Task<T> ReadAsync<T>(HttpResponseMessage response, JsonTypeInfo<T> type, CancellationToken cancellation)
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

    private async Task<HttpResponseMessage> SendAsync(
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
