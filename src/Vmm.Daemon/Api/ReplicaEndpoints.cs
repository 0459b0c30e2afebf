using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Replication of VMs over REST, as their operators ask for it at the primary.</summary>
internal static class ReplicaEndpoints
{
    internal static void Map(RouteGroupBuilder api, Replications replicas, Jobs jobs)
    {
        api.MapPut("/vms/{name}/replica", async context =>
        {
            ReplicaWish wish = await BodyAsync(context, RequestJson.Default.ReplicaWish).ConfigureAwait(false);
            await JsonAsync(
                context, replicas.EnableAsync(Name(context), wish, context.RequestAborted), RestJson.Default.ReplicaInfo)
                .ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapGet("/vms/{name}/replica", context =>
            Json(context, replicas.Get(Name(context)).Info, RestJson.Default.ReplicaInfo)).For(Role.Viewer);
        api.MapDelete("/vms/{name}/replica", async context =>
        {
            await replicas.DisableAsync(Name(context), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = StatusCodes.Status204NoContent;
        }).For(Role.Admin);
        api.MapPost("/vms/{name}/replica/pause", async context =>
        {
            ReplicaPauseWish wish = await BodyAsync(context, RequestJson.Default.ReplicaPauseWish).ConfigureAwait(false);
            VmReplication one = replicas.Get(Name(context));
            one.Pause(ReplicaWishCheck.Suspension(wish, Who(context).Name, DateTimeOffset.UtcNow));
            await Json(context, one.Info, RestJson.Default.ReplicaInfo).ConfigureAwait(false);
        }).For(Role.Operator);
        api.MapPost("/vms/{name}/replica/resume", context =>
        {
            VmReplication one = replicas.Get(Name(context));
            one.Resume(Who(context).Name);
            return Json(context, one.Info, RestJson.Default.ReplicaInfo);
        }).For(Role.Operator);
        MapJobs(api, replicas, jobs);
    }

    private static void MapJobs(RouteGroupBuilder api, Replications replicas, Jobs jobs)
    {
        api.MapPost("/vms/{name}/replica/sync", context => Begin(
            context, "replica-sync", (one, progress, cancellation) => one.SyncAsync(progress, cancellation))).For(Role.Operator);
        api.MapPost("/vms/{name}/replica/verify", context => Begin(
            context, "replica-verify", (one, progress, cancellation) => one.VerifyAsync(progress, cancellation))).For(Role.Operator);
        api.MapPost("/vms/{name}/replica/resync", context =>
        {
            string who = Who(context).Name;
            return Begin(
                context, "replica-resync", (one, progress, cancellation) => one.ResyncAsync(who, progress, cancellation));
        }).For(Role.Admin);

        Task Begin(HttpContext context, string kind, Func<VmReplication, Action<double>, CancellationToken, Task> work)
        {
            VmReplication one = replicas.Get(Name(context));
            return JobEndpoints.Accepted(context, jobs.Start(
                kind, Name(context), Who(context), (progress, cancellation) => work(one, progress, cancellation)));
        }
    }
}
