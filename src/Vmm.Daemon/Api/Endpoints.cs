using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Metrics;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>The REST interface, one class per noun; docs/rest.md describes it.</summary>
internal static class Endpoints
{
    internal static void Map(IEndpointRouteBuilder routes, VmManager vms, TokenStore tokens, DaemonMetrics metrics, Jobs jobs, DiskFolder disks, BalancerService balancer, LogControl log)
    {
        routes.MapGet("/healthz", context => context.Response.WriteAsync("ok\n", context.RequestAborted)).ForEverybody();
        routes.MapGet("/metrics", metrics.AnswerAsync).For(Role.Viewer);
        RouteGroupBuilder api = routes.MapGroup("/api/v1");
        HostEndpoints.Map(api);
        VmEndpoints.Map(api, vms, jobs);
        NumaEndpoints.Map(api, vms, jobs);
        DeviceEndpoints.Map(api, vms);
        JobEndpoints.Map(api, jobs);
        DiskEndpoints.Map(api, disks, jobs);
        EventEndpoints.Map(api, vms.Events);
        BalancerEndpoints.Map(api, balancer);
        LogEndpoints.Map(api, log);
        TokenEndpoints.Map(api, tokens);
        OpenApi.Map(routes);
    }
}
