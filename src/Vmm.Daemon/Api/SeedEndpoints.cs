using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Seeds of VMs over REST: they are given and deleted, and never read.</summary>
internal static class SeedEndpoints
{
    internal static void Map(RouteGroupBuilder api, VmManager vms)
    {
        api.MapGet("/vms/{name}/seed", context => Json(context, vms.Get(Name(context)).Seed.Info, RestJson.Default.VmSeedInfo))
            .For(Role.Viewer);
        api.MapPut("/vms/{name}/seed", async context =>
        {
            VmSeedWish wish = await BodyAsync(context, RequestJson.Default.VmSeedWish).ConfigureAwait(false);
            await JsonAsync(context, vms.Get(Name(context)).Seed.PutAsync(wish, context.RequestAborted),
                RestJson.Default.VmSeedInfo).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/vms/{name}/seed", async context =>
        {
            await vms.Get(Name(context)).Seed.DeleteAsync(context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).For(Role.Admin);
    }
}
