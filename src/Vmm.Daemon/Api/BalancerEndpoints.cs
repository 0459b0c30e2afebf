using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Pressure;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>What decides about the memory of VMs by itself, over REST: the balancer and the pressure loop.</summary>
internal static class BalancerEndpoints
{
    internal static void Map(RouteGroupBuilder api, BalancerService balancer, PressureService pressure)
    {
        api.MapGet("/pressure", context => Json(context, pressure.Info, RestJson.Default.PressureInfo)).For(Role.Viewer);
        api.MapGet("/balancer", context => Json(context, balancer.Info, RestJson.Default.BalancerInfo)).For(Role.Viewer);
        api.MapPut("/balancer", async context =>
            await Json(
                context,
                balancer.Set(await BodyAsync(context, RequestJson.Default.BalancerWish).ConfigureAwait(false)),
                RestJson.Default.BalancerInfo).ConfigureAwait(false))
                .For(Role.Admin);
    }
}
