using System.Globalization;
using System.Text.Json;

namespace Vmm.State;

/// <summary>
/// Reads a <see cref="StateDocument"/> from bytes that may come from anywhere. Members come in the order in which they are written, none is
/// unknown, and every checksum is right, or the document is refused. Takes time and memory in proportion to the bytes.
/// </summary>
public ref struct StateDocumentReader
{
    private readonly ReadOnlyMemory<byte> _bytes;
    private Utf8JsonReader _json;

    private StateDocumentReader(ReadOnlyMemory<byte> bytes)
    {
        _bytes = bytes;
        _json = new Utf8JsonReader(bytes.Span, new JsonReaderOptions { MaxDepth = StateDocument.MaxDepth + 8 });
    }

    /// <summary>Reads a document; the records keep hold of <paramref name="bytes"/>.</summary>
    /// <exception cref="StateException">It is none, is damaged, or of another version.</exception>
    public static StateDocument Read(ReadOnlyMemory<byte> bytes)
    {
        if (bytes.Length > StateDocument.MaxBytes)
        {
            throw new StateException($"The document has {bytes.Length} bytes; at most {StateDocument.MaxBytes} are read.");
        }

        try
        {
            return new StateDocumentReader(bytes).Document();
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or FormatException)
        {
            throw new StateException($"The document is damaged: {StateText.Printable(cause.Message)}", cause);
        }
    }

    private StateDocument Document()
    {
        Next(JsonTokenType.StartObject);
        Member("format");
        string format = Text(StateDocument.Format.Length);
        if (!string.Equals(format, StateDocument.Format, StringComparison.Ordinal))
        {
            throw new StateException(
                $"This is not a saved VM: its format is '{StateText.Printable(format)}', not '{StateDocument.Format}'.");
        }

        Member("version");
        int version = Number(StateShape.MaxVersion);
        if (version != StateDocument.Version)
        {
            throw new StateException($"The saved VM has format version {version}; this release reads version {StateDocument.Version}.");
        }

        Member("program");
        string program = StateText.Printable(Text(StateDocument.MaxProgram));
        Member("about");
        Next(JsonTokenType.StartObject);
        UnitBlob about = Unit();
        if (!about.Name.Is(StateDocument.AboutName))
        {
            throw Damaged($"the first unit is '{about.Name}', not '{StateDocument.AboutName}'");
        }

        Member("units");
        Next(JsonTokenType.StartArray);
        List<UnitBlob> units = Units();
        Next(JsonTokenType.EndObject);
        return _json.Read() ? throw Damaged("something follows its end") : new StateDocument(program, about, units);
    }

    private List<UnitBlob> Units()
    {
        List<UnitBlob> units = [];
        HashSet<PartId> names = [new PartId(StateDocument.AboutName)];
        while (Next() != JsonTokenType.EndArray)
        {
            Require(JsonTokenType.StartObject);
            UnitBlob unit = Unit();
            if (!names.Add(unit.Name))
            {
                throw Damaged($"two units have the name '{unit.Name}'");
            }

            if (units.Count == StateDocument.MaxUnits)
            {
                throw Damaged($"more than {StateDocument.MaxUnits} units");
            }

            units.Add(unit);
        }

        return units;
    }

    /// <summary>A unit whose first brace was read.</summary>
    private UnitBlob Unit()
    {
        Member("name");
        PartId name = new(Text(PartId.MaxLength));
        Member("crc32c");
        string crc = Text(8);
        Member("records");
        Next(JsonTokenType.StartArray);
        int start = (int)_json.TokenStartIndex;
        List<StateRecord> records = Records(name);
        uint actual = Crc32C.Of(_bytes.Span[start..(int)_json.BytesConsumed], name.Checksum);
        if (!uint.TryParse(crc, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint stated) || stated != actual)
        {
            throw new StateException(
                $"{name}: the checksum of its records is {actual:x8}, not {StateText.Printable(crc)}: the document is damaged or changed.");
        }

        Next(JsonTokenType.EndObject);
        return new UnitBlob(name, records);
    }

    private List<StateRecord> Records(PartId unit)
    {
        List<StateRecord> records = [];
        while (Next() != JsonTokenType.EndArray)
        {
            Require(JsonTokenType.StartObject);
            Member("kind");
            string kind = Text(PartId.MaxLength);
            Member("version");
            int version = Number(StateShape.MaxVersion);
            Member("data");
            Next();
            int start = (int)_json.TokenStartIndex;
            _json.Skip();
            ReadOnlyMemory<byte> data = _bytes[start..(int)_json.BytesConsumed];
            Next(JsonTokenType.EndObject);
            if (!PartId.IsName(kind) || version < 1)
            {
                throw Damaged($"{unit}: a record has the kind '{StateText.Printable(kind)}' and version {version}");
            }

            if (records.Count == StateDocument.MaxRecords || records.Exists(r => string.Equals(r.Kind, kind, StringComparison.Ordinal)))
            {
                throw Damaged($"{unit}: its record '{kind}' is there twice, or is one of more than {StateDocument.MaxRecords}");
            }

            records.Add(new StateRecord(kind, version, data));
        }

        return records;
    }

    private JsonTokenType Next() => _json.Read() ? _json.TokenType : throw Damaged("it ends too early");

    private void Next(JsonTokenType wanted)
    {
        Next();
        Require(wanted);
    }

    private readonly void Require(JsonTokenType wanted)
    {
        if (_json.TokenType != wanted)
        {
            throw Damaged($"there is {_json.TokenType} at byte {_json.TokenStartIndex}, not {wanted}");
        }
    }

    private void Member(string name)
    {
        Next(JsonTokenType.PropertyName);
        if (!_json.ValueTextEquals(name))
        {
            throw Damaged($"there is another member than '{name}' at byte {_json.TokenStartIndex}");
        }
    }

    private string Text(int longest)
    {
        Next(JsonTokenType.String);
        return _json.ValueSpan.Length <= longest
            ? _json.GetString()!
            : throw Damaged($"the text at byte {_json.TokenStartIndex} is longer than {longest}");
    }

    private int Number(int most)
    {
        Next(JsonTokenType.Number);
        return _json.TryGetInt32(out int value) && value >= 0 && value <= most
            ? value
            : throw Damaged($"the number at byte {_json.TokenStartIndex} is not one of 0 to {most}");
    }

    private static StateException Damaged(string what) => new($"The document is damaged: {what}.");
}
