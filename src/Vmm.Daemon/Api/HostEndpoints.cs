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
    internal static void Map(RouteGroupBuilder api, HostKvm kvm)
    {
        api.MapGet("/host", context => Json(context, Host(kvm), RestJson.Default.HostInfo)).For(Role.Viewer);
        api.MapGet("/schema/vm-spec.json", context => Text(context, SpecSchema.Json(), "application/schema+json")).For(Role.Viewer);
    }

    private static HostInfo Host(HostKvm kvm)
    {
        IEnumerable<HostNodeInfo> nodes = HostTopology.Read().Nodes
            .Select(n => new HostNodeInfo(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes));
        return new HostInfo(DaemonOptions.Version, kvm.Kind, [.. nodes], kvm.CpuModels);
    }
}
