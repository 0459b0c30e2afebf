using System.Text;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.State;

/// <summary>
/// The shapes of saved records as text: one line a field, so that a change of a shape shows in a diff. A test compares it with
/// docs/saved-state.schema.txt.
/// </summary>
public static class StateSchema
{
    /// <summary>Writes the shapes, sorted by kind and version.</summary>
    public static string Write(IEnumerable<StateShape> shapes)
    {
        StringBuilder text = new();
        foreach (StateShape shape in shapes.OrderBy(s => s.Kind, StringComparer.Ordinal).ThenBy(s => s.Version))
        {
            text.Append(shape.Kind).Append(" v").Append(shape.Version).Append('\n');
            WriteFields(text, shape.Fields, "  ");
        }

        return text.ToString();
    }

    private static void WriteFields(StringBuilder text, JsonTypeInfo type, string indent)
    {
        foreach (JsonPropertyInfo field in type.Properties)
        {
            Type inner = Nullable.GetUnderlyingType(field.PropertyType) ?? field.PropertyType;
            bool optional = inner != field.PropertyType || field.IsSetNullable;
            JsonTypeInfo fieldType = type.Options.GetTypeInfo(inner);
            bool isList = fieldType.Kind == JsonTypeInfoKind.Enumerable;
            JsonTypeInfo element = isList ? type.Options.GetTypeInfo(fieldType.ElementType!) : fieldType;
            text.Append(indent).Append(field.Name).Append(": ").Append(NameOf(element));
            text.Append(isList ? "[]" : "").Append(optional ? "?" : "").Append('\n');
            if (element.Kind == JsonTypeInfoKind.Object)
            {
                WriteFields(text, element, indent + "  ");
            }
        }
    }

    private static string NameOf(JsonTypeInfo type) => type.Kind == JsonTypeInfoKind.Object
        ? "object"
        : Type.GetTypeCode(type.Type) switch
        {
            TypeCode.Boolean => "bool",
            TypeCode.Byte => "u8",
            TypeCode.UInt16 => "u16",
            TypeCode.UInt32 => "u32",
            TypeCode.UInt64 => "u64",
            TypeCode.Int32 => "i32",
            TypeCode.Int64 => "i64",
            TypeCode.String => "text",
            _ when type.Type == typeof(byte[]) => "bytes",
            _ => throw new NotSupportedException($"{type.Type} has no place in a saved record."),
        };
}
