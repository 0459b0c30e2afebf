using System.Globalization;
using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>What <see cref="RequestGuard"/> knows of a request that it handles.</summary>
internal sealed class GuardedRequest(HttpRequest request)
{
    private static long s_last;

    private readonly long _begin = Environment.TickCount64;

    /// <summary>Its name in logs and errors, unique on this host.</summary>
    internal string Id { get; } =
        string.Create(CultureInfo.InvariantCulture, $"{Environment.ProcessId}-{Interlocked.Increment(ref s_last)}");

    /// <summary>It may change something.</summary>
    internal bool IsChange { get; } = !HttpMethods.IsGet(request.Method) && !HttpMethods.IsHead(request.Method);

    /// <summary>Who sent it, as far as it is known.</summary>
    internal string Who { get; private set; } = "unknown";

    /// <summary>Its entry in the audit log; null when it is in none, or not yet.</summary>
    internal AuditEntry? Entry { get; set; }

    /// <summary>What stands at each line of the log that is written on its behalf.</summary>
    internal Dictionary<string, object> LogProperties => field ??= new(StringComparer.Ordinal) { ["Request"] = Id };

    /// <summary>How long it has taken so far.</summary>
    internal long Milliseconds => Environment.TickCount64 - _begin;

    /// <summary>Its sender is known.</summary>
    internal void Recognised(Principal principal)
    {
        Who = principal.Name;
        LogProperties["Who"] = Who;
    }
}
