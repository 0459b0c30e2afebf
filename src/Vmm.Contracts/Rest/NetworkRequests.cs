using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>Private networks of the daemon.</summary>
public static class NetworkRequests
{
    /// <summary>All networks.</summary>
    public static Task<NetworkList> NetworksAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "networks", null, RestJson.Default.NetworkList, cancellation);

    /// <summary>One network.</summary>
    public static Task<NetworkInfo> NetworkAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, Network(name), null, RestJson.Default.NetworkInfo, cancellation);

    /// <summary>Makes a network; it is up when this returns.</summary>
    public static Task<NetworkInfo> CreateNetworkAsync(this VmmClient client, NetworkRequest wish, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, "networks", JsonSerializer.Serialize(wish, RestJson.Default.NetworkRequest),
            RestJson.Default.NetworkInfo, cancellation);

    /// <summary>Changes a network, which VMs may use.</summary>
    public static Task<NetworkInfo> ChangeNetworkAsync(
        this VmmClient client, string name, NetworkChange change, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Put, Network(name), JsonSerializer.Serialize(change, RestJson.Default.NetworkChange),
            RestJson.Default.NetworkInfo, cancellation);

    /// <summary>Deletes a network that no VM uses.</summary>
    public static Task DeleteNetworkAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.TellAsync(HttpMethod.Delete, Network(name), null, cancellation);

    private static string Network(string name) => "networks/" + Uri.EscapeDataString(name);
}
