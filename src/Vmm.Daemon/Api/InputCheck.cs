using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Primitives;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Api;

/// <summary>
/// What a request carries is what its route takes, or it is refused: a misspelt parameter that nobody looks at makes another command of it.
/// Looked at before the route runs, for all routes alike.
/// </summary>
internal static class InputCheck
{
    private const int LongestShown = 64;
    private static readonly string[] s_media = ["application/json", "application/yaml"], s_octets = ["application/octet-stream"];

    /// <summary>Looks at the query, at If-Match and at what kind of body there is.</summary>
    /// <exception cref="ApiException">One of them is not what the route takes; it is named.</exception>
    internal static void Check(HttpContext context)
    {
        if (context.GetEndpoint() is not RouteEndpoint route || route.Metadata.GetMetadata<RouteRole>() is null)
        {
            return; // nothing is there, or not with this method: said by the web server
        }

        CheckQuery(context, route.Metadata.GetOrderedMetadata<QueryParameter>());
        if (context.Request.Headers.IfMatch.Count > 0 && route.Metadata.GetMetadata<ConditionalRoute>() is null)
        {
            throw Bad("If-Match", $"{context.Request.Method} {context.Request.Path} does not honour it: leave it out");
        }

        CheckBody(context, OpenApiTable.Find(context.Request.Method, "/" + route.RoutePattern.RawText!.TrimStart('/')));
    }

    private static void CheckQuery(HttpContext context, IReadOnlyList<QueryParameter> known)
    {
        foreach ((string key, StringValues values) in context.Request.Query)
        {
            string shown = Clip(key);
            if (known.FirstOrDefault(p => string.Equals(p.Name, key, StringComparison.Ordinal)) is not { } parameter)
            {
                string? near = Names.Nearest(shown, known.Select(p => p.Name));
                throw Bad(shown, near is not null ? $"unknown parameter; did you mean {near}?"
                    : known.Count > 0 ? $"unknown parameter; known here: {string.Join(", ", known.Select(p => p.Name))}"
                    : "unknown parameter; there are none here");
            }

            if (values.Count != 1)
            {
                throw Bad(key, $"given {values.Count} times");
            }

            string value = values[0] ?? "";
            bool sound = parameter.Type switch
            {
                "integer" =>
                    int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number <= parameter.Most,
                "boolean" => value is "true" or "false",
                _ => true,
            };
            if (!sound)
            {
                string expected = parameter.Type is "integer" ? $"0 to {parameter.Most} seconds" : "true or false";
                throw Bad(key, $"\"{Clip(value)}\", expected {expected}");
            }
        }
    }

    /// <summary>
    /// A body that no route reads was meant for something. One that is read says what it is: a page of another origin can send only forms
    /// and plain text without asking first (Fetch, "CORS-safelisted request-header"), and is not asked back here.
    /// </summary>
    private static void CheckBody(HttpContext context, OpenApiEntry? entry)
    {
        HttpRequest request = context.Request;
        if (request.ContentLength is null or 0 && request.Headers.TransferEncoding.Count == 0)
        {
            return;
        }

        if (entry is not { Body: not null } and not { IsSpec: true } and not { IsOctets: true })
        {
            throw Bad("body", $"{request.Method} {request.Path} takes none");
        }

        string type = request.ContentType ?? "", media = type.Split(';')[0].Trim();
        string[] expected = entry.IsOctets ? s_octets : s_media;
        if (!expected.Contains(media, StringComparer.OrdinalIgnoreCase))
        {
            throw new ApiException(415, "unsupported-media-type", "the body is of another kind",
                $"Content-Type: \"{Clip(type)}\", expected {string.Join(" or ", expected)}");
        }
    }

    private static ApiException Bad(string field, string problem) =>
        new(400, "bad-request", "the request cannot be read", $"{field}: {problem}", [new FieldProblem(field, problem, 0)]);

    private static string Clip(string text) => text.Length <= LongestShown ? text : text[..LongestShown] + "…";
}
