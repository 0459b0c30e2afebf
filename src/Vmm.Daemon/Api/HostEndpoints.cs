using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Kvm;
using Vmm.Machine.Spec;
using Vmm.Memory;
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

    private static HostInfo Host()
    {
        string kvm;
        try
        {
            using KvmSystem system = KvmSystem.Open();
            kvm = KvmKindProbe.Detect(system) == KvmKind.Hardware ? "hardware" : "emulating";
        }
        catch (KvmUnavailableException)
        {
            kvm = "none";
        }

        return new HostInfo(DaemonOptions.Version, kvm, [.. HostTopology.Read().Nodes.Select(n => new HostNodeInfo(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes))]);
    }
}
