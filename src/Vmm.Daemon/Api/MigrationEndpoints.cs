using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Moves of VMs from other hosts, as their vmmd ask for them.</summary>
internal static class MigrationEndpoints
{
    internal static void Map(RouteGroupBuilder api, Migrations migrations)
    {
        api.MapPost("/migrations", async context =>
        {
            MigrationOffer offer = await BodyAsync(context, RequestJson.Default.MigrationOffer).ConfigureAwait(false);
            await JsonAsync(context, migrations.OfferAsync(offer, context.RequestAborted), RestJson.Default.MigrationInfo)
                .ConfigureAwait(false);
        }).For(Role.Peer);
        api.MapGet("/migrations/{id}", context => Json(context, migrations.Find(Id(context)), RestJson.Default.MigrationInfo))
            .For(Role.Peer);
        api.MapPost("/migrations/{id}/commit", context =>
            JsonAsync(context, migrations.CommitAsync(Id(context)), RestJson.Default.MigrationInfo)).For(Role.Peer);
        api.MapDelete("/migrations/{id}", context =>
            JsonAsync(context, migrations.AbortAsync(Id(context)), RestJson.Default.MigrationInfo)).For(Role.Peer);
        api.MapGet("/migrations/{id}/channels/{channel}", context => ChannelAsync(context, migrations)).Audited().For(Role.Peer);
    }

    private static string Id(HttpContext context) => (string)context.Request.RouteValues["id"]!;

    private static async Task ChannelAsync(HttpContext context, Migrations migrations)
    {
        IncomingMigration incoming = migrations.Get(Id(context));
        if (context.Features.Get<IHttpUpgradeFeature>() is not { IsUpgradableRequest: true } upgrade
            || !string.Equals(context.Request.Headers.Upgrade.ToString(), MigrationPeer.Protocol, StringComparison.OrdinalIgnoreCase))
        {
            throw new ApiException(426, "upgrade-only", "a channel is a stream",
                $"{context.Request.Path}: ask for it with Connection: Upgrade and Upgrade: {MigrationPeer.Protocol}");
        }

        int number = int.TryParse((string)context.Request.RouteValues["channel"]!, System.Globalization.NumberStyles.None,
            System.Globalization.CultureInfo.InvariantCulture, out int channel) ? channel : -1;
        using FileDescriptorHandle end = incoming.TakeChannel(number);
        if (context.Features.Get<IConnectionSocketFeature>() is { Socket: { } socket } && context.Connection.RemoteIpAddress is not null)
        {
            DeadLinks.Notice(socket);
        }

        using Welcome welcome = WhileWelcome(context);
        using CancellationTokenSource over = CancellationTokenSource.CreateLinkedTokenSource(welcome.Over, incoming.Cut);
        context.Response.Headers.Connection = "Upgrade";
        context.Response.Headers.Upgrade = MigrationPeer.Protocol;
        Stream remote = await upgrade.UpgradeAsync().ConfigureAwait(false);
        await ChannelRelay.RunAsync(end, remote, over.Token).ConfigureAwait(false);
    }
}
