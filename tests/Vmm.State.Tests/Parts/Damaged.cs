using System.Text;
using System.Text.Json.Nodes;

namespace Vmm.State.Tests.Parts;

/// <summary>A record with some of its values replaced by others of the same type: its checksum and its shape may well be right.</summary>
internal static class Damaged
{
    internal static byte[] Json(ReadOnlySpan<byte> record, Random random)
    {
        JsonNode root = JsonNode.Parse(record)!;
        foreach (JsonValue value in Values(root).ToArray())
        {
            if (random.Next(4) == 0)
            {
                value.ReplaceWith(Other(value, random));
            }
        }

        foreach (JsonArray list in Lists(root).ToArray())
        {
            if (list.Count > 0 && random.Next(8) == 0)
            {
                list.Add(list[random.Next(list.Count)]?.DeepClone());
            }
            else if (list.Count > 0 && random.Next(8) == 0)
            {
                list.RemoveAt(random.Next(list.Count));
            }
        }

        return Encoding.UTF8.GetBytes(root.ToJsonString());
    }

    private static IEnumerable<JsonArray> Lists(JsonNode? node) => node switch
    {
        JsonObject o => o.SelectMany(m => Lists(m.Value)),
        JsonArray a => [a, .. a.SelectMany(Lists)],
        _ => [],
    };

    private static IEnumerable<JsonValue> Values(JsonNode? node) => node switch
    {
        JsonObject o => o.SelectMany(m => Values(m.Value)),
        JsonArray a => a.SelectMany(Values),
        JsonValue v => [v],
        _ => [],
    };

    private static JsonNode? Other(JsonValue value, Random random)
    {
        if (value.TryGetValue(out bool flag))
        {
            return JsonValue.Create(!flag);
        }

        if (value.TryGetValue(out string? _))
        {
            byte[] bytes = new byte[random.Next(3) switch { 0 => 0, 1 => random.Next(40), _ => random.Next(5000) }];
            random.NextBytes(bytes);
            return JsonValue.Create(Convert.ToBase64String(bytes));
        }

        return random.Next(8) switch
        {
            0 => null,
            1 => JsonValue.Create(0),
            2 => JsonValue.Create(255),
            3 => JsonValue.Create(65535),
            4 => JsonValue.Create(uint.MaxValue),
            5 => JsonValue.Create(ulong.MaxValue),
            6 => JsonValue.Create(-1),
            _ => JsonValue.Create(random.Next(256)),
        };
    }
}
