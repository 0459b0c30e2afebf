using System.Globalization;
using System.Text;
using System.Text.Json;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>Writes a part of a spec on one line (YAML's flow style). What has its default is left out.</summary>
internal static class SpecWriter
{
    /// <summary>An object as <c>{name: value, …}</c>.</summary>
    internal static string Write(SpecField type, object part)
    {
        object defaults = type.Create!();
        StringBuilder text = new("{");
        foreach (SpecField field in type.Fields)
        {
            if (!field.OtherForm && field.Get(part) is { } value && (field.Required || !value.Equals(field.Get(defaults)))
                && value is not IReadOnlyList<object> { Count: 0 })
            {
                text.Append(text.Length > 1 ? ", " : "").Append(field.Name).Append(": ").Append(Value(field, value));
            }
        }

        return text.Append('}').ToString();
    }

    private static string Value(SpecField field, object value) => field.Kind switch
    {
        SpecKind.Object => Write(field, value),
        SpecKind.Text or SpecKind.Path => $"\"{JsonEncodedText.Encode((string)value).Value}\"", // YAML takes JSON's strings
        SpecKind.Bool => (bool)value ? "true" : "false",
        SpecKind.Size => ((ByteSize)value).Bytes.ToString(CultureInfo.InvariantCulture),
        SpecKind.Word => (string)value,
        SpecKind.List when field.Item is { } item =>
            $"[{string.Join(", ", ((IReadOnlyList<object>)value).Select(one => Value(item, one)))}]",
        SpecKind.Number => ((long)value).ToString(CultureInfo.InvariantCulture),
        _ => throw new InvalidOperationException($"{field.Name}: a {field.Kind} is not written on one line"),
    };
}
