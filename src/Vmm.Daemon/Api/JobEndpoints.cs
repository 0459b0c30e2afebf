using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Jobs over REST, and the answers of requests that become jobs.</summary>
internal static class JobEndpoints
{
    internal static void Map(RouteGroupBuilder api, Jobs jobs)
    {
        api.MapGet("/jobs", context => Json(context, jobs.List(), RestJson.Default.JobList)).For(Role.Viewer);
        api.MapGet("/jobs/{id}", context => Json(context, jobs.Get(Id(context)), RestJson.Default.JobInfo)).For(Role.Viewer);
        api.MapPost("/jobs/{id}/cancel", async context => await Json(context, await jobs.CancelAsync(Id(context), Who(context)).ConfigureAwait(false), RestJson.Default.JobInfo).ConfigureAwait(false)).For(Role.Operator);
    }

    /// <summary>202 with the job (RFC 9110, section 15.3.3).</summary>
    internal static Task Accepted(HttpContext context, JobInfo job)
    {
        context.Response.StatusCode = 202;
        context.Response.Headers.Location = "/api/v1/jobs/" + job.Id;
        return Json(context, job, RestJson.Default.JobInfo);
    }

    /// <summary>The client would rather have a job than wait (RFC 7240, section 4.1).</summary>
    internal static bool PrefersJob(HttpContext context) => context.Request.Headers["Prefer"].Any(value => value!.Split(',').Any(p => p.Trim().Equals("respond-async", StringComparison.OrdinalIgnoreCase)));

    private static string Id(HttpContext context) => (string)context.Request.RouteValues["id"]!;
}
