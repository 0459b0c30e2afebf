using Microsoft.AspNetCore.Builder;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>Says at each route who may use it. A route that says nothing is for administrators.</summary>
internal static class RouteRoles
{
    /// <summary>For this role and those above it.</summary>
    internal static void For(this IEndpointConventionBuilder route, Role least) => route.WithMetadata(new RouteRole(least));

    /// <summary>For everybody who can connect.</summary>
    internal static void ForEverybody(this IEndpointConventionBuilder route) => route.WithMetadata(new RouteRole(null));
}
