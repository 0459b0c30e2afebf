using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Replicas.Receiving;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Replicas of VMs of other hosts, for operators of this one: recovery points and failovers.</summary>
internal static class RecoveryEndpoints
{
    internal static void Map(RouteGroupBuilder api, ReplicaLibrary library, Recoveries recoveries)
    {
        api.MapGet("/replicas", context => Json(
            context, new ReplicaList(library.Sent(), [.. library.All.Select(recoveries.Describe)]), RestJson.Default.ReplicaList))
            .For(Role.Viewer);
        api.MapGet("/replicas/{name}", context =>
            Json(context, recoveries.Describe(library.Get(Name(context))), RestJson.Default.RecoveryInfo)).For(Role.Viewer);
        api.MapDelete("/replicas/{name}", async context =>
        {
            await recoveries.DeleteAsync(library.Get(Name(context)), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).For(Role.Admin);
        api.MapPost("/replicas/{name}/test-failover", async context =>
        {
            FailoverWish wish = await BodyAsync(context, RequestJson.Default.FailoverWish).ConfigureAwait(false);
            await JobEndpoints.Accepted(context, recoveries.Test(library.Get(Name(context)), wish, Who(context))).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/replicas/{name}/tests/{vm}", async context =>
        {
            await recoveries.RemoveTestAsync(
                library.Get(Name(context)), (string)context.Request.RouteValues["vm"]!, context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).For(Role.Admin);
        api.MapPost("/replicas/{name}/failover", async context =>
        {
            FailoverWish wish = await BodyAsync(context, RequestJson.Default.FailoverWish).ConfigureAwait(false);
            await JobEndpoints.Accepted(context, recoveries.Failover(library.Get(Name(context)), wish, Who(context))).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/replicas/{name}/commit", context => JsonAsync(
            context, recoveries.CommitAsync(library.Get(Name(context)), context.RequestAborted), RestJson.Default.RecoveryInfo))
            .For(Role.Admin);
        api.MapPost("/replicas/{name}/cancel", context =>
            JobEndpoints.Accepted(context, recoveries.Cancel(library.Get(Name(context)), Who(context)))).For(Role.Admin);
        api.MapPost("/replicas/{name}/verify", async context =>
        {
            FailoverWish wish = await BodyAsync(context, RequestJson.Default.FailoverWish).ConfigureAwait(false);
            await JobEndpoints.Accepted(context, recoveries.Verify(library.Get(Name(context)), wish, Who(context))).ConfigureAwait(false);
        }).For(Role.Operator);
    }
}
