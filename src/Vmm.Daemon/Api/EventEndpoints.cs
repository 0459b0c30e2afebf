using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>What happens, as a stream of server-sent events (WHATWG HTML, section 9.2).</summary>
internal static class EventEndpoints
{
    private static readonly TimeSpan s_heartbeat = TimeSpan.FromSeconds(15);

    internal static void Map(RouteGroupBuilder api, EventHub hub) =>
        api.MapGet("/events", context => StreamAsync(context, hub)).For(Role.Viewer);

    private static async Task StreamAsync(HttpContext context, EventHub hub)
    {
        long? after = After(context);
        using Welcome welcome = Exchange.WhileWelcome(context);
        try
        {
            await StreamAsync(context, hub, after, welcome.Over).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            // The token's time is over, or it was revoked: the stream ends, and a client that comes back is asked who it is.
        }
    }

    private static async Task StreamAsync(HttpContext context, EventHub hub, long? after, CancellationToken gone)
    {
        using EventHub.Listening listening = hub.Listen(after);
        context.Response.ContentType = "text/event-stream";
        context.Response.Headers.CacheControl = "no-store";
        if (listening.Gap)
        {
            // No id: the client keeps asking from where it was until it gets a numbered one.
            await context.Response.WriteAsync("event: gap\ndata: {}\n\n", gone).ConfigureAwait(false);
        }

        foreach (DaemonEvent missed in listening.Missed)
        {
            await WriteAsync(context, missed).ConfigureAwait(false);
        }

        await context.Response.Body.FlushAsync(gone).ConfigureAwait(false);
        while (true)
        {
            using CancellationTokenSource beat = CancellationTokenSource.CreateLinkedTokenSource(gone);
            beat.CancelAfter(s_heartbeat);
            try
            {
                if (!await listening.Events.WaitToReadAsync(beat.Token).ConfigureAwait(false))
                {
                    return; // too slow: it comes back with Last-Event-ID
                }

                while (listening.Events.TryRead(out DaemonEvent? what))
                {
                    await WriteAsync(context, what).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException) when (!gone.IsCancellationRequested)
            {
                await context.Response.WriteAsync(": still here\n\n", gone).ConfigureAwait(false);
            }

            await context.Response.Body.FlushAsync(gone).ConfigureAwait(false);
        }
    }

    private static Task WriteAsync(HttpContext context, DaemonEvent what) => context.Response.WriteAsync(
        string.Create(CultureInfo.InvariantCulture,
            $"id: {what.Id}\nevent: {what.Kind}\ndata: {JsonSerializer.Serialize(what, RestJson.Default.DaemonEvent)}\n\n"),
        context.RequestAborted);

    private static long? After(HttpContext context)
    {
        string text = context.Request.Headers["Last-Event-ID"].ToString();
        return text.Length == 0 ? null
            : long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long id) ? id
            : throw new ApiException(
                400, "bad-request", "the request cannot be read", $"Last-Event-ID: {text} is not a number of this daemon");
    }
}
