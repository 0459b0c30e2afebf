using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Images;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Networks;
using Vmm.Daemon.Pressure;
using Vmm.Daemon.Replicas.Receiving;
using Vmm.Daemon.Replicas.Sending;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>The REST interface, one class per noun; docs/rest.md describes it.</summary>
internal static class Endpoints
{
    internal static void Map(IEndpointRouteBuilder routes)
    {
        IServiceProvider parts = routes.ServiceProvider;
        VmManager vms = parts.GetRequiredService<VmManager>();
        Jobs jobs = parts.GetRequiredService<Jobs>();
        routes.MapGet("/healthz", context => context.Response.WriteAsync("ok\n", context.RequestAborted)).ForEverybody();
        routes.MapGet("/metrics", parts.GetRequiredService<DaemonMetrics>().AnswerAsync).For(Role.Viewer);
        RouteGroupBuilder api = routes.MapGroup("/api/v1");
        HostEndpoints.Map(api, parts.GetRequiredService<HostKvm>());
        VmEndpoints.Map(api, vms, jobs);
        SavedEndpoints.Map(api, vms, jobs);
        MoveEndpoints.Map(api, vms, jobs);
        MigrationEndpoints.Map(api, parts.GetRequiredService<Migrations>());
        ReplicaEndpoints.Map(api, parts.GetRequiredService<Replications>(), jobs);
        ReplicationEndpoints.Map(api, parts.GetRequiredService<ReplicaLibrary>());
        RecoveryEndpoints.Map(api, parts.GetRequiredService<ReplicaLibrary>(), parts.GetRequiredService<Recoveries>());
        SeedEndpoints.Map(api, vms);
        NumaEndpoints.Map(api, vms, jobs);
        DeviceEndpoints.Map(api, vms, jobs);
        JobEndpoints.Map(api, jobs);
        DiskEndpoints.Map(api, parts.GetRequiredService<DiskFolder>(), jobs);
        ImageEndpoints.Map(api, parts.GetRequiredService<ImageStore>(), jobs);
        NetworkEndpoints.Map(api, parts.GetRequiredService<NetworkStore>());
        EventEndpoints.Map(api, vms.Events);
        BalancerEndpoints.Map(api, parts.GetRequiredService<BalancerService>(), parts.GetRequiredService<PressureService>());
        LogEndpoints.Map(api, parts.GetRequiredService<LogControl>());
        TokenEndpoints.Map(api, parts.GetRequiredService<TokenStore>());
        OpenApi.Map(routes);
    }
}
