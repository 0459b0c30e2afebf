using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>
/// Around every request: who sends it, whether they may, whether it is what the route takes, what went wrong, and the audit log of every
/// change. What is refused before anything is done is counted and sampled (<see cref="Refusals"/>): the audit log is for those who may
/// change something.
/// </summary>
internal sealed class RequestGuard(
    RequestDelegate next, Gatekeeper gate, AuditLog audit, Refusals refusals, DaemonMetrics metrics, ILogger<RequestGuard> log)
{
    private const int LongestShown = 256, LongestDetail = 64 << 10;

    private static long s_last;

    /// <summary>Handles one request.</summary>
    public async Task InvokeAsync(HttpContext context)
    {
        string request = string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}-{Interlocked.Increment(ref s_last)}"),
            who = "unknown", what = $"{context.Request.Method} {context.Request.Path}";
        bool change = !HttpMethods.IsGet(context.Request.Method) && !HttpMethods.IsHead(context.Request.Method);
        long begin = Environment.TickCount64;
        Problem? problem = null;
        AuditEntry? entry = null;
        Dictionary<string, object> properties = new(StringComparer.Ordinal) { ["Request"] = request };
        using IDisposable? scope = log.BeginScope(properties); // on every line that is logged on behalf of this request
        try
        {
            OriginCheck.Check(context.Request);
            if (context.GetEndpoint()?.Metadata.GetMetadata<RouteRole>() is not { Least: null })
            {
                Principal principal = gate.Recognise(context);
                who = principal.Name;
                properties["Who"] = who;
                context.Items[typeof(Principal)] = principal;
                Require(context, principal);
            }

            InputCheck.Check(context);
            if (change || context.GetEndpoint()?.Metadata.GetMetadata<AuditedRoute>() is not null)
            {
                AuditEntry asked = new(audit, request, who, From(context), what);
                asked.Asked(context);
                entry = asked;
            }

            await next(context).ConfigureAwait(false);
            if (context.Response.StatusCode is 404 or 405 && !context.Response.HasStarted)
            {
                throw context.Response.StatusCode == 404
                    ? new ApiException(
                        404, "no-such-path", "no such path", $"{context.Request.Path}: there is nothing; /api/v1/vms is the list of VMs")
                    : new ApiException(405, "no-such-method", "no such method",
                        $"{context.Request.Method} {context.Request.Path}: this path does not know the method");
            }
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
            // The client left; there is nobody to tell.
        }
#pragma warning disable CA1031 // The last stop: whatever fails here is an answer and a line in the log, not the end of the daemon.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Fault(log, e, context.Request.Method, Shown(context.Request.Path), request);
            problem = new Problem(
                500, "internal", "an error of the daemon", $"request {request} failed inside the daemon; its log has the details");
        }

        int status = problem?.Status ?? context.Response.StatusCode;
        entry?.Answered(status, problem?.Code);
        string path = Shown(context.Request.Path);
        if (entry is null && status is 401 or 403)
        {
            refusals.Count(PeerKey.Of(context), problem!.Code, $"{Shown(context.Request.Method)} {path}");
        }
        else if (change)
        {
            DaemonLog.Change(log, who, context.Request.Method, path, status, request);
        }
        else
        {
            DaemonLog.Read(log, who, context.Request.Method, path, status, Environment.TickCount64 - begin, request);
        }

        metrics.Answered((context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText ?? "none", context.Request.Method, status);
        if (problem is not null)
        {
            await AnswerAsync(context, problem).ConfigureAwait(false);
        }
    }

    private static void Require(HttpContext context, Principal principal)
    {
        Role least = context.GetEndpoint() is not { } endpoint ? Role.Viewer // nothing is there, which everybody who is known may be told
            : endpoint.Metadata.GetMetadata<RouteRole>()?.Least ?? Role.Admin;
        if (principal.Role < least)
        {
            throw new ApiException(403, "forbidden", "not allowed",
                $"{principal.Name} is {Word(principal.Role)} and {context.Request.Method} {context.Request.Path} is for {Word(least)}");
        }
    }

    private static string Shown(string text) => text.Length <= LongestShown ? text : text[..LongestShown] + "…";

    private static string Word(Role role) => role.ToString().ToLowerInvariant();

    private static string From(HttpContext context) =>
        context.Connection.RemoteIpAddress is { } address
            ? $"{address}:{context.Connection.RemotePort.ToString(CultureInfo.InvariantCulture)}"
        : context.Features.Get<IConnectionSocketFeature>() is { } connection && Peer.Of(connection.Socket) is { } peer
            ? $"pid={peer.ProcessId.ToString(CultureInfo.InvariantCulture)}"
        : "unknown";

    private static async Task AnswerAsync(HttpContext context, Problem problem)
    {
        if (context.Response.HasStarted)
        {
            context.Abort();
            return;
        }

        if (problem.Detail.Length > LongestDetail)
        {
            problem = problem with { Detail = problem.Detail[..LongestDetail] + "…" }; // it may quote what the client sent
        }

        context.Response.Clear();
        context.Response.StatusCode = problem.Status;
        context.Response.ContentType = "application/problem+json";
        if (problem.Status == 401)
        {
            context.Response.Headers.WWWAuthenticate = "Bearer";
        }

        await context.Response.WriteAsync(
            JsonSerializer.Serialize(problem, RestJson.Default.Problem), CancellationToken.None).ConfigureAwait(false);
    }
}
