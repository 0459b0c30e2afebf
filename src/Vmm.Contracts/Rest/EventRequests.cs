using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Vmm.Contracts.Rest;

/// <summary>What happens on the host.</summary>
public static class EventRequests
{
    /// <summary>What the daemon remembers about a VM.</summary>
    public static Task<EventList> EventsOfAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/events", null, RestJson.Default.EventList, cancellation);

    /// <summary>
    /// What happens from now on, or from behind the event numbered <paramref name="after"/>. Ends when the daemon lets go; an event of kind
    /// <c>gap</c> says that some are missing.
    /// </summary>
    public static async IAsyncEnumerable<DaemonEvent> EventsAsync(
        this VmmClient client, long? after, [EnumeratorCancellation] CancellationToken cancellation)
    {
        using HttpRequestMessage request = new(HttpMethod.Get, "events");
        if (after is { } id)
        {
            request.Headers.Add("Last-Event-ID", id.ToString(CultureInfo.InvariantCulture));
        }

        using HttpResponseMessage response = await client.SendAsync(
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
}
