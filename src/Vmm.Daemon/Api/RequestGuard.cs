using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Security;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>Around every request: who may, what went wrong, and a line in the audit log for every change before its answer goes out.</summary>
internal sealed class RequestGuard(RequestDelegate next, Authenticator authenticator, AuditLog audit, RequestCounts counts, ILogger<RequestGuard> log)
{
    private const int LongestPath = 512;

    /// <summary>Handles one request.</summary>
    public async Task InvokeAsync(HttpContext context)
    {
        HttpRequest request = context.Request;
        string route = (context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText ?? "";
        bool console = context.WebSockets.IsWebSocketRequest;
        bool change = !HttpMethods.IsGet(request.Method);
        Stream body = context.Response.Body;
        using MemoryStream held = new();
        Principal? who = null;
        Problem? problem = null;
        context.Response.Headers["X-Request-Id"] = context.TraceIdentifier;
        try
        {
            who = authenticator.Identify(context);
            Authorize(who, request.Method, route);
            if (change || console)
            {
                Recorded(audit.Prepare);
            }

            if (console)
            {
                Recorded(() => audit.Append(Entry(context, who, StatusCodes.Status101SwitchingProtocols, null)));
            }

            if (change)
            {
                context.Response.Body = held; // the answer waits for the audit log
            }

            await next(context).ConfigureAwait(false);
            problem = context.Response.HasStarted ? null : context.Response.StatusCode switch
            {
                404 => new Problem(404, "no-such-path", "no such path", $"{request.Path}: there is nothing; /api/v1/vms is the list of VMs"),
                405 => new Problem(405, "no-such-method", "no such method", $"{request.Method} {request.Path}: this path does not know the method"),
                _ => null,
            };
        }
        catch (ApiException e)
        {
            problem = e.Problem;
        }
        catch (BadHttpRequestException e)
        {
            problem = new Problem(e.StatusCode, e.StatusCode == 413 ? "too-large" : "bad-request", "the request cannot be read", e.Message);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The client left; there is nobody to tell, but perhaps a change to record.
            problem = new Problem(499, "client-left", "the client left", "");
        }
#pragma warning disable CA1031 // The last stop: whatever fails here is an answer and a line in the log, not the end of the daemon.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Fault(log, e, request.Method, request.Path, context.TraceIdentifier);
            problem = new Problem(500, "internal", "an error of the daemon", "the daemon's log has the details");
        }

        context.Response.Body = body;
        int status = problem?.Status ?? context.Response.StatusCode;
        if (change)
        {
            try
            {
                audit.Append(Entry(context, who, status, problem?.Code));
            }
            catch (IOException e)
            {
                DaemonLog.AuditFailed(log, e);
                problem = new Problem(503, "audit-unavailable", "no audit log", status < 400
                    ? "this was done, but could not be recorded: the audit log cannot be written; nothing more will be changed until it can"
                    : "the audit log cannot be written: nothing is changed until it can");
                status = 503;
            }

            DaemonLog.Change(log, who?.Name ?? "unknown", request.Method, request.Path, status, context.TraceIdentifier);
        }

        counts.Count(request.Method, route, status);
        if (problem is not null)
        {
            await AnswerAsync(context, problem).ConfigureAwait(false);
        }
        else if (held.Length > 0)
        {
            context.Response.ContentLength = held.Length;
            await body.WriteAsync(held.GetBuffer().AsMemory(0, (int)held.Length), context.RequestAborted).ConfigureAwait(false);
        }
    }

    private static void Authorize(Principal who, string method, string route)
    {
        // No route: an answer that there is nothing, for those who may look.
        Role needed = route.Length == 0 ? Role.Viewer
            : RouteRoles.Of(method, route) ?? throw new ApiException(403, "forbidden", "not allowed", $"{method} {route} is open to nobody");
        if (who.Role < needed)
        {
            throw new ApiException(403, "forbidden", "not allowed", $"this needs the role {needed.ToString().ToLowerInvariant()}, you have {who.Role.ToString().ToLowerInvariant()}");
        }
    }

    private static void Recorded(Action record)
    {
        try
        {
            record();
        }
        catch (IOException e)
        {
            throw new ApiException(503, "audit-unavailable", "no audit log", "the audit log cannot be written: nothing is changed until it can", inner: e);
        }
    }

    private static AuditEntry Entry(HttpContext context, Principal? who, int status, string? code)
    {
        string path = context.Request.Path.Value ?? "";
        return new AuditEntry(DateTimeOffset.UtcNow, who?.Name ?? "unknown", who?.Role.ToString(), who?.Source ?? Authenticator.SourceOf(context),
            context.Request.Method, path.Length > LongestPath ? path[..LongestPath] : path, status, code, context.TraceIdentifier);
    }

    private static async Task AnswerAsync(HttpContext context, Problem problem)
    {
        if (context.Response.HasStarted || problem.Status == 499)
        {
            context.Abort();
            return;
        }

        context.Response.Clear();
        context.Response.StatusCode = problem.Status;
        context.Response.Headers["X-Request-Id"] = context.TraceIdentifier;
        if (problem.Status == 401)
        {
            context.Response.Headers.WWWAuthenticate = "Bearer"; // RFC 6750, section 3
        }

        context.Response.ContentType = "application/problem+json";
        await context.Response.WriteAsync(JsonSerializer.Serialize(problem with { RequestId = context.TraceIdentifier }, RestJson.Default.Problem), CancellationToken.None).ConfigureAwait(false);
    }
}
