using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Security;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Tokens over REST.</summary>
internal static class TokenEndpoints
{
    internal static void Map(RouteGroupBuilder api, Tokens tokens)
    {
        api.MapGet("/tokens", context => Json(context, tokens.List(), RestJson.Default.TokenList));
        api.MapPost("/tokens", async context =>
        {
            NewToken made = tokens.Create(await BodyAsync(context, RestJson.Default.TokenRequest).ConfigureAwait(false));
            context.Response.StatusCode = 201;
            context.Response.Headers.CacheControl = "no-store";
            context.Response.Headers.Location = "/api/v1/tokens/" + made.Info.Id;
            await Json(context, made, RestJson.Default.NewToken).ConfigureAwait(false);
        });
        api.MapDelete("/tokens/{id}", context =>
        {
            tokens.Remove((string)context.Request.RouteValues["id"]!);
            context.Response.StatusCode = 204;
            return Task.CompletedTask;
        });
    }
}
