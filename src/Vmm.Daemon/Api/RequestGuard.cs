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

    /// <summary>Handles one request.</summary>
    public async Task InvokeAsync(HttpContext context)
    {
        GuardedRequest request = new(context.Request);
        using IDisposable? scope = log.BeginScope(request.LogProperties); // on every line that is logged on behalf of this request
        Problem? problem = await CarryOutAsync(context, request).ConfigureAwait(false);
        Report(context, request, problem);
        if (problem is not null)
        {
            await AnswerAsync(context, problem).ConfigureAwait(false);
        }
    }

    /// <summary>Lets the request in and its route answer it.</summary>
    /// <returns>What went wrong; null when it is answered or its client has left.</returns>
    private async Task<Problem?> CarryOutAsync(HttpContext context, GuardedRequest request)
    {
        try
        {
            Admit(context, request);
            await next(context).ConfigureAwait(false);
            RequireRoute(context);
            return null;
        }
        catch (ApiException e)
        {
            return e.Problem;
        }
        catch (BadHttpRequestException e)
        {
            return new Problem(e.StatusCode, e.StatusCode == 413 ? "too-large" : "bad-request", "the request cannot be read", e.Message);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            return null; // The client left; there is nobody to tell.
        }
#pragma warning disable CA1031 // The last stop: whatever fails here is an answer and a line in the log, not the end of the daemon.
        catch (Exception e)
#pragma warning restore CA1031
        {
            DaemonLog.Fault(log, e, context.Request.Method, Shown(context.Request.Path), request.Id);
            return DaemonFault.ToProblem(e, $"request {request.Id} failed inside the daemon; its log has the details");
        }
    }

    /// <summary>
    /// Who sends it, whether they may, whether it is what the route takes; what changes something is in the audit log first.
    /// </summary>
    /// <exception cref="ApiException">It is refused.</exception>
    private void Admit(HttpContext context, GuardedRequest request)
    {
        OriginCheck.Check(context.Request);
        EndpointMetadataCollection? route = context.GetEndpoint()?.Metadata;
        if (route?.GetMetadata<RouteRole>() is not { Least: null })
        {
            Principal principal = gate.Recognise(context);
            request.Recognised(principal);
            context.Items[typeof(Principal)] = principal;
            Require(context, principal);
        }

        InputCheck.Check(context);
        if ((request.IsChange && !IsQuiet(context)) || route?.GetMetadata<AuditedRoute>() is not null)
        {
            AuditEntry asked = new(audit, request.Id, request.Who, From(context), $"{context.Request.Method} {context.Request.Path}");
            asked.Asked(context);
            request.Entry = asked;
        }
    }

    /// <summary>What no route took is told as every other refusal.</summary>
    /// <exception cref="ApiException">No route took it.</exception>
    private static void RequireRoute(HttpContext context)
    {
        if (context.Response.StatusCode is not (404 or 405) || context.Response.HasStarted)
        {
            return;
        }

        throw context.Response.StatusCode == 404
            ? new ApiException(
                404, "no-such-path", "no such path", $"{context.Request.Path}: there is nothing; /api/v1/vms is the list of VMs")
            : new ApiException(405, "no-such-method", "no such method",
                $"{context.Request.Method} {context.Request.Path}: this path does not know the method");
    }

    /// <summary>Its end in the audit log, the daemon's log and the metrics.</summary>
    private void Report(HttpContext context, GuardedRequest request, Problem? problem)
    {
        int status = problem?.Status ?? context.Response.StatusCode;
        request.Entry?.Answered(status, problem?.Code);
        string method = context.Request.Method, path = Shown(context.Request.Path);
        if (request.Entry is null && status is 401 or 403)
        {
            refusals.Count(PeerKey.Of(context), problem!.Code, $"{Shown(method)} {path}");
        }
        else if (request.IsChange && (status >= 400 || !IsQuiet(context)))
        {
            DaemonLog.Change(log, request.Who, method, path, status, request.Id);
        }
        else
        {
            DaemonLog.Read(log, request.Who, method, path, status, request.Milliseconds, request.Id);
        }

        metrics.Answered((context.GetEndpoint() as RouteEndpoint)?.RoutePattern.RawText ?? "none", method, status);
    }

    private static bool IsQuiet(HttpContext context) => context.GetEndpoint()?.Metadata.GetMetadata<QuietRoute>() is not null;

    private static void Require(HttpContext context, Principal principal)
    {
        Role least = context.GetEndpoint() is not { } endpoint ? Role.Viewer // nothing is there, which everybody who is known may be told
            : endpoint.Metadata.GetMetadata<RouteRole>()?.Least ?? Role.Admin;
        if (least == Role.Peer ? principal.Role is not (Role.Peer or Role.Admin) : principal.Role < least)
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
