using System.Buffers;
using System.Text.Json;

namespace Vmm.State;

/// <summary>Writes a <see cref="StateDocument"/>.</summary>
public static class StateDocumentWriter
{
    /// <summary>UTF-8, without line breaks inside of units: their checksums are over the bytes as they stand.</summary>
    /// <exception cref="StateException">It is beyond the limits of the format, or has two units of one name.</exception>
    public static byte[] Write(StateDocument document)
    {
        Check(document);
        ArrayBufferWriter<byte> bytes = new(64 << 10);
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { Indented = true, MaxDepth = StateDocument.MaxDepth + 8 }))
        {
            json.WriteStartObject();
            json.WriteString("format", StateDocument.Format);
            json.WriteNumber("version", StateDocument.Version);
            json.WriteString("program", document.Program);
            WriteUnit(json, "about", document.About);
            json.WriteStartArray("units");
            foreach (UnitBlob unit in document.Units)
            {
                WriteUnit(json, name: null, unit);
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        return bytes.WrittenCount <= StateDocument.MaxBytes
            ? bytes.WrittenSpan.ToArray()
            : throw new StateException($"The state has {bytes.WrittenCount} bytes; a document has at most {StateDocument.MaxBytes}.");
    }

    private static void Check(StateDocument document)
    {
        HashSet<PartId> names = [document.About.Name];
        if (!document.About.Name.Is(StateDocument.AboutName) || document.Program.Length > StateDocument.MaxProgram)
        {
            throw new StateException(
                $"The first unit is to be '{StateDocument.AboutName}', and the program's name at most {StateDocument.MaxProgram} long.");
        }

        if (document.Units.Count > StateDocument.MaxUnits)
        {
            throw new StateException($"{document.Units.Count} units; a document has at most {StateDocument.MaxUnits}.");
        }

        foreach (UnitBlob unit in document.Units)
        {
            if (!names.Add(unit.Name))
            {
                throw new StateException($"Two units have the name '{unit.Name}'.");
            }
        }
    }

    private static void WriteUnit(Utf8JsonWriter json, string? name, UnitBlob unit)
    {
        byte[] records = Records(unit);
        if (name is null)
        {
            json.WriteStartObject();
        }
        else
        {
            json.WriteStartObject(name);
        }

        json.WriteString("name", unit.Name.ToString());
        json.WriteString("crc32c", Crc32C.Of(records, unit.Name.Checksum).ToString("x8"));
        json.WritePropertyName("records");
        json.WriteRawValue(records, skipInputValidation: true);
        json.WriteEndObject();
    }

    private static byte[] Records(UnitBlob unit)
    {
        ArrayBufferWriter<byte> bytes = new();
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { MaxDepth = StateDocument.MaxDepth + 4 }))
        {
            json.WriteStartArray();
            foreach (StateRecord record in unit.Records)
            {
                json.WriteStartObject();
                json.WriteString("kind", record.Kind);
                json.WriteNumber("version", record.Version);
                json.WritePropertyName("data");
                json.WriteRawValue(record.Data.Span);
                json.WriteEndObject();
            }

            json.WriteEndArray();
        }

        return bytes.WrittenSpan.ToArray();
    }
}
