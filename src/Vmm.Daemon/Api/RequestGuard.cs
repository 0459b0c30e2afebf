using System.Text.Json;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>Around every request: who may, what went wrong, and a line in the log for every change.</summary>
public sealed class RequestGuard(RequestDelegate next, DaemonOptions options, ILogger<RequestGuard> log)
{
    /// <summary>Handles one request.</summary>
    public async Task InvokeAsync(HttpContext context)
    {
        Peer? peer = context.Features.Get<IConnectionSocketFeature>() is { } connection ? Peer.Of(connection.Socket) : null;
        string who = peer is null ? "unknown" : $"uid={peer.UserId} pid={peer.ProcessId}";
        try
        {
            if (peer is null || !options.Allows(peer))
            {
                throw new ApiException(403, "forbidden", "not allowed", $"{who} may not use this daemon: run as root or as the daemon's own user");
            }

            await next(context).ConfigureAwait(false);
            if (context.Response.StatusCode is 404 or 405 && !context.Response.HasStarted)
            {
                throw context.Response.StatusCode == 404
                    ? new ApiException(404, "no-such-path", "no such path", $"{context.Request.Path}: there is nothing; /api/v1/vms is the list of VMs")
                    : new ApiException(405, "no-such-method", "no such method", $"{context.Request.Method} {context.Request.Path}: this path does not know the method");
            }
        }
        catch (ApiException e)
        {
            await AnswerAsync(context, e.Problem).ConfigureAwait(false);
        }
        catch (BadHttpRequestException e)
        {
            await AnswerAsync(context, new Problem(e.StatusCode, e.StatusCode == 413 ? "too-large" : "bad-request", "the request cannot be read", e.Message)).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The client left; there is nobody to tell.
        }
#pragma warning disable CA1031 // The last stop: whatever fails here is an answer and a line in the log, not the end of the daemon.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Fault(log, e, context.Request.Method, context.Request.Path);
            await AnswerAsync(context, new Problem(500, "internal", "an error of the daemon", $"{e.Message} (the daemon's log has the details)")).ConfigureAwait(false);
        }

        if (!HttpMethods.IsGet(context.Request.Method))
        {
            DaemonLog.Change(log, who, context.Request.Method, context.Request.Path, context.Response.StatusCode);
        }
    }

    private static async Task AnswerAsync(HttpContext context, Problem problem)
    {
        if (context.Response.HasStarted)
        {
            context.Abort();
            return;
        }

        context.Response.Clear();
        context.Response.StatusCode = problem.Status;
        context.Response.ContentType = "application/problem+json";
        await context.Response.WriteAsync(JsonSerializer.Serialize(problem, RestJson.Default.Problem), CancellationToken.None).ConfigureAwait(false);
    }
}
