using System.Globalization;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Routing;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Tests;

public sealed class OpenApiTests
{
    [Fact]
    public async Task Every_route_is_in_the_document_with_a_summary_and_every_reference_resolves()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        JsonObject document = JsonNode.Parse(await daemon.GetAsync("/openapi/v1.json"))!.AsObject();
        Assert.Equal("3.1.0", (string?)document["openapi"]);
        RouteEndpoint[] routes = [.. daemon.Host.Routes.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()];
        Assert.True(routes.Length > 15);
        foreach (RouteEndpoint route in routes)
        {
            string method = route.Metadata.GetMetadata<HttpMethodMetadata>()!.HttpMethods.Single(), pattern = route.RoutePattern.RawText!;
            Assert.True(
                document["paths"]![pattern]?[method.ToLowerInvariant()] is JsonObject, $"{method} {pattern} is not in the document");
            Assert.True(OpenApiTable.Find(method, pattern) is not null, $"{method} {pattern} has no summary");
        }

        Assert.Equal(routes.Length, document["paths"]!.AsObject().Sum(path => path.Value!.AsObject().Count));
        Assert.True(CheckReferences(document, document) > routes.Length);
        string[] Queries(string path, string method) => [.. document["paths"]![path]![method]!["parameters"]!
            .AsArray()
            .Where(p => (string?)p!["in"] == "query")
            .Select(p => (string)p!["name"]!)];
        Assert.Equal(["folder"], Queries("/api/v1/vms", "post"));
        Assert.Equal(["timeout", "force", "persistent"], Queries("/api/v1/vms/{name}/devices/{device}", "delete"));
        Assert.Equal(["graceful"], Queries("/api/v1/vms/{name}/stop", "post"));
        Assert.NotNull(document["components"]!["schemas"]!["VmInfo"]!["properties"]!["memoryBytes"]);
    }

    private static int CheckReferences(JsonNode? node, JsonObject document)
    {
        if (node is JsonArray list)
        {
            return list.Sum(item => CheckReferences(item, document));
        }

        if (node is not JsonObject thing)
        {
            return 0;
        }

        int count = 0;
        if (thing["$ref"] is JsonValue reference)
        {
            string text = reference.GetValue<string>();
            Assert.StartsWith("#/", text, StringComparison.Ordinal);
            JsonNode? at = document;
            foreach (string step in text[2..].Split('/'))
            {
                at = at is JsonArray items
                    ? items[int.Parse(step, CultureInfo.InvariantCulture)]
                    : at?[step.Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal)];
            }

            Assert.True(at is not null, $"{text} leads nowhere");
            count = 1;
        }

        return count + thing.Sum(member => CheckReferences(member.Value, document));
    }
}
