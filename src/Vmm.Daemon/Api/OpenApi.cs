using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Api;

/// <summary>The OpenAPI 3.1 document, made from the routes that are mapped: it cannot name one that is not there, nor miss one.</summary>
internal static class OpenApi
{
    private const string Schemas = "#/components/schemas/";

    /// <summary>To be mapped after all others have been; made when it is first asked for.</summary>
    internal static void Map(IEndpointRouteBuilder routes)
    {
        Lazy<string> text = new(() => Document(routes.DataSources.SelectMany(s => s.Endpoints).OfType<RouteEndpoint>()).ToJsonString());
        routes.MapGet("/openapi/v1.json", context => Exchange.Text(context, text.Value, "application/json")).For(Role.Viewer);
    }

    internal static JsonObject Document(IEnumerable<RouteEndpoint> routes)
    {
        JsonObject paths = [], schemas = [];
        foreach (RouteEndpoint route in routes)
        {
            string pattern = "/" + route.RoutePattern.RawText!.TrimStart('/');
            if (paths[pattern] is not JsonObject path)
            {
                paths[pattern] = path = [];
            }

            foreach (string method in route.Metadata.GetMetadata<HttpMethodMetadata>()?.HttpMethods ?? [])
            {
                path[method.ToLowerInvariant()] = Operation(method, pattern, route, schemas);
            }
        }

        return new JsonObject
        {
            ["openapi"] = "3.1.0",
            ["info"] = new JsonObject { ["title"] = "vmmd", ["version"] = DaemonOptions.Version },
            ["paths"] = paths,
            ["components"] = new JsonObject
            {
                ["schemas"] = schemas,
                ["securitySchemes"] = new JsonObject { ["token"] = new JsonObject { ["type"] = "http", ["scheme"] = "bearer" } },
            },
        };
    }

    private static JsonObject Operation(string method, string pattern, RouteEndpoint route, JsonObject schemas)
    {
        // A route that says nothing is for administrators: RouteRoles.
        RouteRole role = route.Metadata.GetMetadata<RouteRole>() ?? new RouteRole(Role.Admin);
        OpenApiEntry? entry = OpenApiTable.Find(method, pattern);
        JsonObject good = new() { ["description"] = "Done" };
        if (entry?.Answer is { } answer)
        {
            good["content"] = Content("application/json", Reference(answer, schemas));
        }
        else if (entry?.AnswerType is { } media)
        {
            good["content"] = Content(media, []);
        }

        JsonObject operation = new()
        {
            ["summary"] = entry?.Summary ?? $"{method} {pattern}",
            ["x-vmm-role"] = role.Least?.ToString().ToLowerInvariant() ?? "everybody",
            ["security"] = role.Least is null ? new JsonArray() : new JsonArray(new JsonObject { ["token"] = new JsonArray() }),
            ["responses"] = new JsonObject
            {
                [entry?.Status ?? "200"] = good,
                ["default"] = new JsonObject
                {
                    ["description"] = "Refused or failed",
                    ["content"] = Content("application/problem+json", Reference(RestJson.Default.Problem, schemas))
                },
            },
        };
        JsonNode[] parameters =
        [
            .. route.RoutePattern.Parameters.Select(p => new JsonObject
            {
                ["name"] = p.Name,
                ["in"] = "path",
                ["required"] = true,
                ["schema"] = new JsonObject { ["type"] = "string" }
            }),
            .. route.Metadata.GetOrderedMetadata<QueryParameter>()
                .Select(p => new JsonObject { ["name"] = p.Name, ["in"] = "query", ["description"] = p.Help, ["schema"] = Schema(p) }),
        ];
        if (parameters.Length > 0)
        {
            operation["parameters"] = new JsonArray(parameters);
        }

        if (RequestContent(entry, schemas) is { } content)
        {
            operation["requestBody"] = new JsonObject { ["required"] = true, ["content"] = content };
        }

        return operation;
    }

    private static JsonObject? RequestContent(OpenApiEntry? entry, JsonObject schemas) => entry switch
    {
        { Body: { } body } => Content("application/json", Reference(body, schemas)),
        { IsSpec: true } => Content("application/yaml", []),
        { IsOctets: true } => Content("application/octet-stream", []),
        _ => null,
    };

    private static JsonObject Schema(QueryParameter parameter) => parameter.Type is "integer"
        ? new() { ["type"] = parameter.Type, ["minimum"] = 0, ["maximum"] = parameter.Most }
        : new() { ["type"] = parameter.Type };

    private static JsonObject Content(string media, JsonObject schema) => new() { [media] = new JsonObject { ["schema"] = schema } };

    private static JsonObject Reference(JsonTypeInfo type, JsonObject schemas)
    {
        string name = type.Type.Name;
        if (!schemas.ContainsKey(name))
        {
            JsonNode schema = type.GetJsonSchemaAsNode(new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true });
            Rebase(schema, Schemas + name);
            schemas[name] = schema;
        }

        return new JsonObject { ["$ref"] = Schemas + name };
    }

    /// <summary>The exporter's references begin at the root of its schema, which is not the root of the document.</summary>
    private static void Rebase(JsonNode? node, string root)
    {
        if (node is JsonObject thing)
        {
            if (thing["$ref"] is JsonValue reference)
            {
                thing["$ref"] = root + reference.GetValue<string>()[1..];
            }

            foreach (KeyValuePair<string, JsonNode?> member in thing)
            {
                Rebase(member.Value, root);
            }
        }
        else if (node is JsonArray list)
        {
            foreach (JsonNode? item in list)
            {
                Rebase(item, root);
            }
        }
    }
}
