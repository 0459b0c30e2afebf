using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>The host, and what this daemon understands.</summary>
internal static class HostEndpoints
{
    internal static void Map(RouteGroupBuilder api)
    {
        api.MapGet("/host", context => Json(context, Host(), RestJson.Default.HostInfo)).For(Role.Viewer);
        api.MapGet("/schema/vm-spec.json", context => Text(context, SpecSchema.Json(), "application/schema+json")).For(Role.Viewer);
    }

    private static HostInfo Host() =>
        new(DaemonOptions.Version, HostKvm.Shared.Kind, [.. HostTopology.Read().Nodes.Select(n => new HostNodeInfo(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes))],
            HostKvm.Shared.CpuModels);
}
