using System.Globalization;
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
        api.MapPost("/jobs/{id}/cancel", context =>
            JsonAsync(context, jobs.CancelAsync(Id(context), Who(context)), RestJson.Default.JobInfo)).For(Role.Operator);
    }

    /// <summary>202 with the job (RFC 9110, section 15.3.3).</summary>
    internal static Task Accepted(HttpContext context, JobInfo job)
    {
        context.Response.StatusCode = 202;
        context.Response.Headers.Location = "/api/v1/jobs/" + job.Id;
        return Json(context, job, RestJson.Default.JobInfo);
    }

    /// <summary>The client would rather have a job than wait (RFC 7240, section 4.1).</summary>
    internal static bool PrefersJob(HttpContext context) => context.Request.Headers["Prefer"]
        .Any(value => value!.Split(',').Any(p => p.Trim().Equals("respond-async", StringComparison.OrdinalIgnoreCase)));

    /// <summary>
    /// How long the client would rather wait than have a job (RFC 7240, section 4.3); zero when it does not say. At most a minute.
    /// </summary>
    internal static TimeSpan PreferredWait(HttpContext context)
    {
        foreach (string part in context.Request.Headers["Prefer"].SelectMany(value => value!.Split(',')))
        {
            string[] pair = part.Split('=', 2);
            if (pair.Length == 2 && pair[0].Trim().Equals("wait", StringComparison.OrdinalIgnoreCase)
                && int.TryParse(pair[1].Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int seconds))
            {
                return TimeSpan.FromSeconds(Math.Min(seconds, 60));
            }
        }

        return TimeSpan.Zero;
    }

    private static string Id(HttpContext context) => (string)context.Request.RouteValues["id"]!;
}
