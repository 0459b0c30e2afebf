using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>
/// Says at each route who may use it, and what its query and headers may hold. A route that says nothing is for administrators.
/// </summary>
internal static class RouteRoles
{
    /// <summary>For this role and those above it.</summary>
    internal static void For(this IEndpointConventionBuilder route, Role least) => route.WithMetadata(new RouteRole(least));

    /// <summary>For everybody who can connect.</summary>
    internal static void ForEverybody(this IEndpointConventionBuilder route) => route.WithMetadata(new RouteRole(null));

    /// <summary>Is in the audit log, although it is a GET.</summary>
    internal static IEndpointConventionBuilder Audited(this IEndpointConventionBuilder route) => route.WithMetadata(AuditedRoute.Instance);

    /// <summary>
    /// Comes every few seconds from another vmmd: neither the audit log nor the log has each, which would push out what people did. What
    /// is refused is in the log.
    /// </summary>
    internal static IEndpointConventionBuilder Quiet(this IEndpointConventionBuilder route) => route.WithMetadata(QuietRoute.Instance);

    /// <summary>Honours If-Match, which only then can be read.</summary>
    internal static IEndpointConventionBuilder Conditional(this IEndpointConventionBuilder route) =>
        route.WithMetadata(ConditionalRoute.Instance);

    /// <summary>A parameter of the query that is a text.</summary>
    /// <param name="route">The route.</param>
    /// <param name="name">Its name.</param>
    /// <param name="help">What it means.</param>
    internal static IEndpointConventionBuilder QueryText(this IEndpointConventionBuilder route, string name, string help) =>
        route.WithMetadata(new QueryParameter(name, "string", help));

    /// <summary>A parameter of the query that is true or false.</summary>
    /// <param name="route">The route.</param>
    /// <param name="name">Its name.</param>
    /// <param name="help">What it means.</param>
    internal static IEndpointConventionBuilder QueryFlag(this IEndpointConventionBuilder route, string name, string help) =>
        route.WithMetadata(new QueryParameter(name, "boolean", help));

    /// <summary>A parameter of the query that is a number of seconds, from 0.</summary>
    /// <param name="route">The route.</param>
    /// <param name="name">Its name.</param>
    /// <param name="most">The largest.</param>
    /// <param name="help">What it means.</param>
    internal static IEndpointConventionBuilder QuerySeconds(this IEndpointConventionBuilder route, string name, int most, string help) =>
        route.WithMetadata(new QueryParameter(name, "integer", help, most));

    /// <summary>The text of a parameter that the route declares; null when it is not there.</summary>
    internal static string? Parameter(HttpContext context, string name) =>
        context.GetEndpoint()?.Metadata.GetOrderedMetadata<QueryParameter>().Any(p => string.Equals(p.Name, name, StringComparison.Ordinal))
            == true
            ? context.Request.Query.TryGetValue(name, out Microsoft.Extensions.Primitives.StringValues value) ? value.ToString() : null
            : throw new InvalidOperationException(
                $"{context.Request.Method} {context.Request.Path} reads {name} of its query and does not declare it");

    /// <summary>The text of If-Match on a route that declares it; empty when it is not there.</summary>
    internal static string IfMatch(HttpContext context) => context.GetEndpoint()?.Metadata.GetMetadata<ConditionalRoute>() is not null
        ? context.Request.Headers.IfMatch.ToString().Trim()
        : throw new InvalidOperationException($"{context.Request.Method} {context.Request.Path} reads If-Match and does not declare it");
}

/// <summary>On a route: a parameter of its query.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">Its JSON type: string, boolean or integer.</param>
/// <param name="Help">What it means.</param>
/// <param name="Most">Of an integer: the largest; the least is 0.</param>
internal sealed record QueryParameter(string Name, string Type, string Help, int Most = 0);

/// <summary>On a route: it is in the audit log.</summary>
internal sealed class AuditedRoute
{
    internal static readonly AuditedRoute Instance = new();
}

/// <summary>On a route: no request of it that succeeds is told of.</summary>
internal sealed class QuietRoute
{
    internal static readonly QuietRoute Instance = new();
}

/// <summary>On a route: it honours If-Match.</summary>
internal sealed class ConditionalRoute
{
    internal static readonly ConditionalRoute Instance = new();
}
