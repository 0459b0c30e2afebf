using System.Text;
using System.Text.Json;

namespace Vmm.Spec;

/// <summary>The JSON schema of a spec file (draft 2020-12), from the same table that reads it.</summary>
public static class SpecSchema
{
    private const string SizePattern = "^([0-9]+( *B)?|[0-9]+([.][0-9]+)? *[KMGT]iB)$";
    private const string PercentPattern = "^[0-9]+%$";
    private const string PortionPattern = "^([0-9]+%|[0-9]+( *B)?|[0-9]+([.][0-9]+)? *[KMGT]iB)$";
    private const string SetPattern = "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$";

    /// <summary>The schema as indented JSON.</summary>
    public static string Json()
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteString("$schema", "https://json-schema.org/draft/2020-12/schema");
            WriteBody(json, VmFields.Root);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(stream.ToArray()) + "\n";
    }

    private static void WriteBody(Utf8JsonWriter json, SpecField field)
    {
        json.WriteString("description", field.Help);
        switch (field.Kind)
        {
            case SpecKind.Text or SpecKind.Path:
                json.WriteString("type", "string");
                json.WriteNumber("maxLength", field.MaxLength);
                break;
            case SpecKind.Bool:
                json.WriteString("type", "boolean");
                break;
            case SpecKind.Number:
                json.WriteString("type", "integer");
                json.WriteNumber("minimum", field.Min);
                json.WriteNumber("maximum", field.Max);
                break;
            case SpecKind.Portion:
                WriteStringOrInteger(json, PortionPattern);
                break;
            case SpecKind.Size when field.Parts.Length > 0:
                WriteOneOf(json, () => WriteStringOrInteger(json, SizePattern), field with { Fields = field.Parts });
                break;
            case SpecKind.Size:
                WriteStringOrInteger(json, SizePattern);
                break;
            case SpecKind.Set:
                WriteStringOrInteger(json, SetPattern);
                break;
            case SpecKind.Percent:
                json.WriteString("type", "string");
                json.WriteString("pattern", PercentPattern);
                break;
            case SpecKind.Word:
                json.WriteStartArray("enum");
                foreach (string word in field.Words)
                {
                    json.WriteStringValue(word);
                }

                json.WriteEndArray();
                break;
            case SpecKind.List:
                json.WriteString("type", "array");
                json.WriteNumber("maxItems", field.Max);
                json.WriteStartObject("items");
                WriteItems(json, field);
                json.WriteEndObject();
                break;
            case SpecKind.Object when field.Switch:
                WriteOneOf(json, () => json.WriteString("type", "boolean"), field);
                break;
            case SpecKind.Object:
                WriteObject(json, field);
                break;
        }
    }

    /// <summary>A short form, or an object.</summary>
    private static void WriteOneOf(Utf8JsonWriter json, Action writeShort, SpecField whole)
    {
        json.WriteStartArray("oneOf");
        json.WriteStartObject();
        writeShort();
        json.WriteEndObject();
        json.WriteStartObject();
        WriteObject(json, whole);
        json.WriteEndObject();
        json.WriteEndArray();
    }

    private static void WriteItems(Utf8JsonWriter json, SpecField field)
    {
        if (field.Kinds is not { } kinds)
        {
            WriteBody(json, field.Item ?? field with { Kind = SpecKind.Object, Help = "One of " + field.Name });
            return;
        }

        json.WriteStartArray("oneOf");
        foreach (SpecField kind in kinds())
        {
            json.WriteStartObject();
            WriteBody(json, kind);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteObject(Utf8JsonWriter json, SpecField field)
    {
        json.WriteString("type", "object");
        json.WriteBoolean("additionalProperties", false);
        json.WriteStartArray("required");
        foreach (SpecField member in field.Fields)
        {
            if (member is { Required: true, InsteadOf: null, Unless.Count: 0 })
            {
                json.WriteStringValue(member.Name);
            }
        }

        json.WriteEndArray();
        WriteForms(json, field);
        json.WriteStartObject("properties");
        foreach (SpecField member in field.Fields)
        {
            json.WriteStartObject(member.Name);
            WriteBody(json, member);
            json.WriteEndObject();
        }

        json.WriteEndObject();
    }

    /// <summary>What is required in one form or another: exactly one of them is there.</summary>
    private static void WriteForms(Utf8JsonWriter json, SpecField field)
    {
        if (Array.Find(field.Fields, f => f.Required && (f.InsteadOf is not null || f.Unless.Count > 0)) is not { } either)
        {
            return;
        }

        json.WriteStartArray("oneOf");
        string[] forms = [either.Name, .. either.Unless, .. either.InsteadOf is { } form ? (string[])[form] : []];
        foreach (string name in forms)
        {
            json.WriteStartObject();
            json.WriteStartArray("required");
            json.WriteStringValue(name);
            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteStringOrInteger(Utf8JsonWriter json, string pattern)
    {
        json.WriteStartArray("type");
        json.WriteStringValue("string");
        json.WriteStringValue("integer");
        json.WriteEndArray();
        json.WriteString("pattern", pattern);
        json.WriteNumber("minimum", 0);
    }
}
