using System.Buffers;
using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Replicas of VMs of other hosts, as their vmmd send them.</summary>
internal static class ReplicationEndpoints
{
    /// <summary>Most bytes of a delta in a request.</summary>
    internal const int MostBytes = 8 << 20;

    private const int MostOffer = 4 << 20, MostLeaves = 65536, LeafBytes = 32;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(90);

    internal static void Map(RouteGroupBuilder api, ReplicaLibrary library)
    {
        api.MapPut("/replication/{vm}", async context =>
        {
            ReplicaOffer offer = await BodyAsync(context, RequestJson.Default.ReplicaOffer).ConfigureAwait(false);
            await JsonAsync(context, library.PairAsync(Text(context, "vm"), offer, Who(context), context.RequestAborted),
                RestJson.Default.ReplicaSiteInfo).ConfigureAwait(false);
        }).For(Role.Peer);
        api.MapGet("/replication/{vm}", context =>
            Json(context, Of(context, library).SiteInfo(), RestJson.Default.ReplicaSiteInfo)).For(Role.Peer);
        api.MapDelete("/replication/{vm}", async context =>
        {
            Replica replica = Of(context, library);
            _ = await replica.ChangeAsync(record => record with { IsPaired = false }, context.RequestAborted).ConfigureAwait(false);
            library.Tell(replica.Name, "its primary has ended the pairing: its points stay");
            context.Response.StatusCode = 204;
        }).For(Role.Peer);
        api.MapPost("/replication/{vm}/points", async context =>
        {
            Allow(context, MostOffer);
            ReplicaPointOffer offer = await BodyAsync(context, RequestJson.Default.ReplicaPointOffer).ConfigureAwait(false);
            await JsonAsync(context, Of(context, library).OfferAsync(offer, context.RequestAborted), RestJson.Default.ReplicaSiteInfo)
                .ConfigureAwait(false);
        }).Quiet().For(Role.Peer);
        api.MapPut("/replication/{vm}/points/{point}/disks/{disk}", context => AppendAsync(context, Of(context, library)))
            .QueryText("offset", "Where in the delta the bytes belong; left out, 0").Quiet().For(Role.Peer);
        api.MapPost("/replication/{vm}/points/{point}/seal", context => JsonAsync(
            context, Of(context, library).SealAsync(Text(context, "point"), context.RequestAborted), RestJson.Default.ReplicaSiteInfo))
            .Quiet().For(Role.Peer);
        api.MapGet("/replication/{vm}/trees/{disk}", context => LeavesAsync(context, Of(context, library)))
            .QueryText("from", "The first extent; left out, 0")
            .QueryText("count", $"How many, at most {MostLeaves}; left out, so many").For(Role.Peer);
    }

    private static async Task AppendAsync(HttpContext context, Replica replica)
    {
        ulong offset = Number(context, "offset", 0, ulong.MaxValue);
        Allow(context, MostBytes + 1);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(MostBytes + 1);
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        deadline.CancelAfter(s_patience);
        try
        {
            ReplicaArrived arrived = await replica.AppendAsync(
                Text(context, "point"), Text(context, "disk"), offset, context.Request.Body, buffer.AsMemory(0, MostBytes + 1),
                deadline.Token).ConfigureAwait(false);
            await Json(context, arrived, RestJson.Default.ReplicaArrived).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!context.RequestAborted.IsCancellationRequested)
        {
            throw new ApiException(408, "replica-slow", "the bytes did not come in time",
                $"{replica.Name}: {s_patience.TotalSeconds:0} s were not enough for at most {MostBytes} bytes: send fewer at once");
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private static async Task LeavesAsync(HttpContext context, Replica replica)
    {
        ulong from = Number(context, "from", 0, ulong.MaxValue / LeafBytes), count = Number(context, "count", MostLeaves, MostLeaves);
        byte[] leaves = ArrayPool<byte>.Shared.Rent((int)count * LeafBytes);
        try
        {
            int length = replica.LeavesOf(Text(context, "disk"), from, leaves.AsMemory(0, (int)count * LeafBytes));
            context.Response.ContentType = "application/octet-stream";
            context.Response.ContentLength = length;
            await context.Response.Body.WriteAsync(leaves.AsMemory(0, length), context.RequestAborted).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(leaves);
        }
    }

    private static Replica Of(HttpContext context, ReplicaLibrary library) => library.GetOf(Text(context, "vm"), Who(context));

    private static string Text(HttpContext context, string name) => (string)context.Request.RouteValues[name]!;

    // More than a spec: only here, where a peer sends it to what is its own.
    private static void Allow(HttpContext context, long bytes)
    {
        if (context.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } limit)
        {
            limit.MaxRequestBodySize = bytes;
        }
    }

    private static ulong Number(HttpContext context, string name, ulong otherwise, ulong most) =>
        RouteRoles.Parameter(context, name) is not { } text ? otherwise
        : ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) && number <= most ? number
        : throw new ApiException(400, "bad-request", "the request cannot be read", $"{name}: expected a number from 0 to {most}",
            [new FieldProblem(name, $"expected a number from 0 to {most}", 0)]);
}
