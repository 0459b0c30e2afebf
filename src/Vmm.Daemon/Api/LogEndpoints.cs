using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>The daemon's log level over REST.</summary>
internal static class LogEndpoints
{
    internal static void Map(RouteGroupBuilder api, LogControl log)
    {
        api.MapGet("/log", context => Json(context, log.Settings, RestJson.Default.LogSettings)).For(Role.Viewer);
        api.MapPut("/log", async context =>
        {
            LogSettings wish = await BodyAsync(context, RequestJson.Default.LogSettings).ConfigureAwait(false);
            await Json(context, LogOptions.TryLevel(wish.Level ?? "", out LogLevel level)
                ? log.Set(level)
                : throw new ApiException(
                    400, "bad-request", "the request cannot be read", $"level \"{wish.Level}\": expected {LogOptions.Levels}"),
                    RestJson.Default.LogSettings).ConfigureAwait(false);
        }).For(Role.Admin);
    }
}
