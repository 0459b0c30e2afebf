using System.Collections.Concurrent;

namespace Vmm.Daemon.Api;

/// <summary>Answered requests by method, route and status. Routes are patterns, so the outside cannot make the table grow.</summary>
internal sealed class RequestCounts
{
    private static readonly HashSet<string> s_methods = new(StringComparer.Ordinal) { "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS" };

    private readonly ConcurrentDictionary<(string Method, string Route, int Status), long> _counts = [];

    internal void Count(string method, string route, int status) => _counts.AddOrUpdate((s_methods.Contains(method) ? method : "other", route.Length > 0 ? route : "none", status), 1, (_, count) => count + 1);

    internal IReadOnlyCollection<KeyValuePair<(string Method, string Route, int Status), long>> All() => [.. _counts];
}
