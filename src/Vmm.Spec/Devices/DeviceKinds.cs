using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Spec.Devices;

/// <summary>
/// The kinds of devices that <c>devices</c> may name. A new kind is a line here, and one where the machine builds devices.
/// </summary>
public static class DeviceKinds
{
    /// <summary>Every kind.</summary>
    internal static DeviceKind[] All { get; } =
    [
        PmemSpec.Registration,
        VhostUserBlkSpec.Registration,
        VhostUserNetSpec.Registration,
    ];

    /// <summary>The words.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. All.Select(k => k.Name)];

    /// <summary>The kind of that name; null when there is none.</summary>
    internal static DeviceKind? Find(string? name) => Array.Find(All, k => string.Equals(k.Name, name, StringComparison.Ordinal));
}

/// <summary>One kind of device: how it is spelled in a spec file, and how it travels to the worker.</summary>
internal sealed class DeviceKind
{
    private DeviceKind(string name, SpecField type, JsonTypeInfo json) => (Name, Type, Json) = (name, type, json);

    /// <summary>The word.</summary>
    internal string Name { get; }

    /// <summary>Its fields, <c>kind</c> among them.</summary>
    internal SpecField Type { get; }

    /// <summary>Its JSON.</summary>
    internal JsonTypeInfo Json { get; }

    /// <summary>Registers a kind.</summary>
    /// <param name="name">The word.</param>
    /// <param name="help">One sentence.</param>
    /// <param name="json">Source-generated JSON of the record.</param>
    /// <param name="fields">Its fields.</param>
    internal static DeviceKind Of<T>(string name, string help, JsonTypeInfo<T> json, params SpecField[] fields)
        where T : DeviceSpec, new()
    {
        SpecField kind = FieldsOf<T>.Word("kind", "The kind of device", () => [name], _ => name, (device, _) => device)
            with
        { Required = true };
        SpecField type = new(name, SpecKind.Object, help) { Create = () => new T(), Fields = [kind, .. fields] };
        return new DeviceKind(name, type, json);
    }
}

/// <summary>JSON of a device: its kind beside the members of its record.</summary>
internal sealed class DeviceSpecConverter : System.Text.Json.Serialization.JsonConverter<DeviceSpec>
{
    private const string Member = "kind";

    /// <inheritdoc/>
    public override DeviceSpec? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        JsonElement element = JsonElement.ParseValue(ref reader);
        string? name = element.ValueKind == JsonValueKind.Object && element.TryGetProperty(Member, out JsonElement kind)
            && kind.ValueKind == JsonValueKind.String ? kind.GetString() : null;
        DeviceKind found = DeviceKinds.Find(name)
            ?? throw new JsonException(
                $"a device of kind \"{SpecPass.Clip(name ?? "", 64)}\", expected one of {string.Join(", ", DeviceKinds.Names)}");
        return (DeviceSpec?)element.Deserialize(found.Json);
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, DeviceSpec value, JsonSerializerOptions options)
    {
        JsonElement members = JsonSerializer.SerializeToElement(value, DeviceKinds.Find(value.Kind)!.Json);
        writer.WriteStartObject();
        writer.WriteString(Member, value.Kind);
        foreach (JsonProperty property in members.EnumerateObject())
        {
            property.WriteTo(writer);
        }

        writer.WriteEndObject();
    }
}
