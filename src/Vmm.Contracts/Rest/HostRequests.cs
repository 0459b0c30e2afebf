using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>The daemon and its host.</summary>
public static class HostRequests
{
    /// <summary>The daemon's host.</summary>
    public static Task<HostInfo> HostAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "host", null, RestJson.Default.HostInfo, cancellation);

    /// <summary>What the daemon logs.</summary>
    public static Task<LogSettings> LogAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "log", null, RestJson.Default.LogSettings, cancellation);

    /// <summary>Changes what the daemon logs, until its next start.</summary>
    public static Task<LogSettings> SetLogAsync(this VmmClient client, LogSettings settings, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Put,
            "log",
            JsonSerializer.Serialize(settings, RestJson.Default.LogSettings),
            RestJson.Default.LogSettings,
            cancellation);
}
