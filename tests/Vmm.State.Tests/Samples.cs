using System.Text.Json.Serialization.Metadata;

namespace Vmm.State.Tests;

/// <summary>A record of each shape, with a value of its own in every field.</summary>
internal static class Samples
{
    internal static string Json(JsonTypeInfo type, bool nulls = false)
    {
        int next = 1;
        return Object(type, nulls, ref next);
    }

    private static string Object(JsonTypeInfo type, bool nulls, ref int next)
    {
        List<string> fields = [];
        foreach (JsonPropertyInfo field in type.Properties)
        {
            Type inner = Nullable.GetUnderlyingType(field.PropertyType) ?? field.PropertyType;
            bool isNull = nulls && inner == field.PropertyType && !field.IsSetNullable;
            fields.Add($"\"{field.Name}\":{(isNull ? "null" : Value(type.Options.GetTypeInfo(inner), ref next))}");
        }

        return $"{{{string.Join(',', fields)}}}";
    }

    private static string Value(JsonTypeInfo type, ref int next)
    {
        if (type.Kind == JsonTypeInfoKind.Object)
        {
            return Object(type, nulls: false, ref next);
        }

        if (type.Kind == JsonTypeInfoKind.Enumerable)
        {
            JsonTypeInfo element = type.Options.GetTypeInfo(type.ElementType!);
            return $"[{Value(element, ref next)},{Value(element, ref next)}]";
        }

        return Type.GetTypeCode(type.Type) switch
        {
            TypeCode.Boolean => (next++ % 2 == 1) ? "true" : "false",
            TypeCode.String => $"\"text{next++}\"",
            _ when type.Type == typeof(byte[]) => $"\"{Convert.ToBase64String([(byte)next++, 255])}\"",
            _ => (next++ % 200).ToString(),
        };
    }
}
