using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Disks over REST.</summary>
internal static class DiskEndpoints
{
    internal static void Map(RouteGroupBuilder api, DiskFolder disks, Jobs jobs)
    {
        api.MapGet("/disks", context => Json(context, disks.List(), RestJson.Default.DiskList)).For(Role.Viewer);
        api.MapGet("/disks/{name}", context => Json(context, disks.Get(Name(context)), RestJson.Default.DiskInfo)).For(Role.Viewer);
        api.MapPost("/disks", async context =>
        {
            DiskRequest wish = await BodyAsync(context, RequestJson.Default.DiskRequest).ConfigureAwait(false);
            await JobEndpoints.Accepted(
                context, jobs.Start("disk-create", wish.Name, Who(context), disks.Prepare(wish))).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/disks/{name}", context =>
        {
            disks.Remove(Name(context));
            context.Response.StatusCode = 204;
            return Task.CompletedTask;
        }).For(Role.Admin);
    }
}
