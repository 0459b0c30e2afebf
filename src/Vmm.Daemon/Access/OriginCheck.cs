using Microsoft.AspNetCore.Http;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Access;

/// <summary>
/// Refuses what a browser sends on behalf of a page of another origin: it would send its user's client certificate along, also to open a
/// console (a WebSocket is not held back by the same-origin policy). Browsers say whose page it is (Origin, RFC 6454, section 7;
/// Sec-Fetch-Site, Fetch Metadata); other clients do not.
/// </summary>
internal static class OriginCheck
{
    /// <summary>Looks at one request.</summary>
    /// <exception cref="ApiException">It comes from a page of another origin.</exception>
    internal static void Check(HttpRequest request)
    {
        string origin = request.Headers.Origin.ToString(), site = request.Headers["Sec-Fetch-Site"].ToString();
        if (origin.Length > 0 && !IsOwn(request, origin))
        {
            throw Foreign($"Origin: {(origin.Length <= 100 ? origin : origin[..100] + "…")}");
        }

        // What a user follows a link to, or types, only looks: the page that has the link does not see the answer.
        bool looks = HttpMethods.IsGet(request.Method) && request.Headers["Sec-Fetch-Mode"].ToString() is "navigate";
        if (site is "cross-site" or "same-site" && !looks)
        {
            throw Foreign($"Sec-Fetch-Site: {site}");
        }
    }

    /// <summary>No page comes from a unix socket; over TLS the browser has checked that the host is who it says.</summary>
    private static bool IsOwn(HttpRequest request, string origin) =>
        request.IsHttps && string.Equals(origin, $"https://{request.Host.Value}", StringComparison.OrdinalIgnoreCase);

    private static ApiException Foreign(string header) =>
        new(403, "foreign-origin", "not allowed", $"{header}: a page of another origin may not use this daemon");
}
