using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>The balancer over REST.</summary>
internal static class BalancerEndpoints
{
    internal static void Map(RouteGroupBuilder api, BalancerService balancer)
    {
        api.MapGet("/balancer", context => Json(context, balancer.Info, RestJson.Default.BalancerInfo)).For(Role.Viewer);
        api.MapPut("/balancer", async context =>
            await Json(
                context,
                balancer.Set(await BodyAsync(context, RequestJson.Default.BalancerWish).ConfigureAwait(false)),
                RestJson.Default.BalancerInfo).ConfigureAwait(false))
                .For(Role.Admin);
    }
}
