using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Access tokens over REST.</summary>
internal static class TokenEndpoints
{
    private const int MostDays = 3650, LongestName = 64;

    internal static void Map(RouteGroupBuilder api, TokenStore tokens)
    {
        api.MapGet("/tokens", context => Json(context, tokens.List(), RestJson.Default.TokenList)).For(Role.Admin);
        api.MapPost("/tokens", async context =>
        {
            TokenWish wish = await BodyAsync(context, RequestJson.Default.TokenWish).ConfigureAwait(false);
            if (wish.Name is null || wish.Name.Length is 0 or > LongestName || wish.Name.Any(char.IsControl)
                || wish.Days is < 1 or > MostDays || !DaemonConfig.TryRole(wish.Role ?? "", out Role role) || role == Role.Peer)
            {
                throw new ApiException(400, "bad-request", "the request cannot be read",
                    $"expected a name of 1 to {LongestName} characters, a role (viewer, operator or admin), and 1 to {MostDays} days");
            }

            context.Response.StatusCode = 201;
            await Json(
                context, tokens.Create(wish.Name, role, TimeSpan.FromDays(wish.Days)), RestJson.Default.NewToken).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/tokens/{id}", context =>
        {
            string id = (string)context.Request.RouteValues["id"]!;
            context.Response.StatusCode = tokens.Remove(id)
                ? 204
                : throw new ApiException(404, "token-not-found", "no such token", $"there is no token {id}");
            return Task.CompletedTask;
        }).For(Role.Admin);
    }
}
