using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Networks;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Private networks over REST.</summary>
internal static class NetworkEndpoints
{
    internal static void Map(RouteGroupBuilder api, NetworkStore networks)
    {
        api.MapGet("/networks", context => Json(context, networks.List(), RestJson.Default.NetworkList)).For(Role.Viewer);
        api.MapGet("/networks/{name}", context =>
            Json(context, networks.Get(Name(context)), RestJson.Default.NetworkInfo)).For(Role.Viewer);
        api.MapPost("/networks", async context =>
        {
            NetworkRequest wish = await BodyAsync(context, RequestJson.Default.NetworkRequest).ConfigureAwait(false);
            NetworkInfo made = await networks.CreateAsync(wish, context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 201;
            await Json(context, made, RestJson.Default.NetworkInfo).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPut("/networks/{name}", async context =>
        {
            NetworkChange change = await BodyAsync(context, RequestJson.Default.NetworkChange).ConfigureAwait(false);
            NetworkInfo changed = await networks.ChangeAsync(Name(context), change, context.RequestAborted).ConfigureAwait(false);
            await Json(context, changed, RestJson.Default.NetworkInfo).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/networks/{name}", async context =>
        {
            await networks.RemoveAsync(Name(context)).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).For(Role.Admin);
    }
}
