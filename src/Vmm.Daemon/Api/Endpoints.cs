using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Daemon.Security;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>The REST interface, one class per noun; docs/rest.md describes it.</summary>
internal static class Endpoints
{
    internal static void Map(IEndpointRouteBuilder routes, VmManager vms, Tokens tokens)
    {
        routes.MapGet("/healthz", context => context.Response.WriteAsync("ok\n", context.RequestAborted));
        RouteGroupBuilder api = routes.MapGroup("/api/v1");
        HostEndpoints.Map(api);
        VmEndpoints.Map(api, vms);
        TokenEndpoints.Map(api, tokens);
        EventEndpoints.Map(api, vms.Events);
    }
}
