using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>Says at each route who may use it, and what its query may hold. A route that says nothing is for administrators.</summary>
internal static class RouteRoles
{
    /// <summary>For this role and those above it.</summary>
    internal static void For(this IEndpointConventionBuilder route, Role least) => route.WithMetadata(new RouteRole(least));

    /// <summary>For everybody who can connect.</summary>
    internal static void ForEverybody(this IEndpointConventionBuilder route) => route.WithMetadata(new RouteRole(null));

    /// <summary>A parameter of the query, which only then can be read.</summary>
    /// <param name="route">The route.</param>
    /// <param name="name">Its name.</param>
    /// <param name="type">Its JSON type, for the OpenAPI document.</param>
    /// <param name="help">What it means.</param>
    internal static IEndpointConventionBuilder Query(this IEndpointConventionBuilder route, string name, string type, string help) => route.WithMetadata(new QueryParameter(name, type, help));

    /// <summary>The text of a parameter that the route declares; empty when it is not there.</summary>
    internal static string Parameter(HttpContext context, string name) =>
        context.GetEndpoint()?.Metadata.GetOrderedMetadata<QueryParameter>().Any(p => string.Equals(p.Name, name, StringComparison.Ordinal)) == true
            ? context.Request.Query[name].ToString()
            : throw new InvalidOperationException($"{context.Request.Method} {context.Request.Path} reads {name} of its query and does not declare it");
}

/// <summary>On a route: a parameter of its query.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">Its JSON type.</param>
/// <param name="Help">What it means.</param>
internal sealed record QueryParameter(string Name, string Type, string Help);
