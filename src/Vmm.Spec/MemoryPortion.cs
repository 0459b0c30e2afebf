using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>A part of a VM's memory: a size, or a percentage of it.</summary>
[JsonConverter(typeof(JsonForm))]
public readonly record struct MemoryPortion
{
    private MemoryPortion(ByteSize? size, int percent) => (Size, Percent) = (size, percent);

    /// <summary>The size; null: <see cref="Percent"/> says it.</summary>
    public ByteSize? Size { get; }

    /// <summary>Percent of the memory, where there is no <see cref="Size"/>.</summary>
    public int Percent { get; }

    /// <summary>A size.</summary>
    public static MemoryPortion Of(ByteSize size) => new(size, 0);

    /// <summary>A percentage.</summary>
    public static MemoryPortion OfPercent(int percent) => new(null, percent);

    /// <summary>Reads <c>25%</c> or a size; false on anything else.</summary>
    public static bool TryParse(string text, out MemoryPortion portion)
    {
        if (SpecText.TryParsePercent(text, out int percent))
        {
            portion = OfPercent(percent);
            return true;
        }

        bool isSize = SpecText.TryParseSize(text, out ByteSize size);
        portion = Of(size);
        return isSize;
    }

    /// <summary>How much that is of a memory: whole pages of 4 KiB.</summary>
    public ByteSize In(ByteSize memory)
    {
        ulong bytes = Size ?? (ulong)((UInt128)memory.Bytes * (uint)Percent / 100);
        return new ByteSize(bytes - (bytes % ByteSize.BytesPerPage));
    }

    /// <inheritdoc/>
    public override string ToString() => Size?.ToString() ?? Percent.ToString(CultureInfo.InvariantCulture) + "%";

    /// <summary>A text, as in a spec file.</summary>
    [SuppressMessage("Performance", "CA1812", Justification = "Made by the serializer")]
    internal sealed class JsonForm : JsonConverter<MemoryPortion>
    {
        public override MemoryPortion Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
            reader.TokenType == JsonTokenType.String && TryParse(reader.GetString()!, out MemoryPortion portion)
                ? portion
                : throw new JsonException("expected a size or a percentage, as text");

        public override void Write(Utf8JsonWriter writer, MemoryPortion value, JsonSerializerOptions options) =>
            writer.WriteStringValue(value.ToString());
    }
}
