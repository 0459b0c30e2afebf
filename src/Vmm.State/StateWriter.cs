using System.Text;
using System.Text.Json;

namespace Vmm.State;

/// <summary>Takes the records of one unit.</summary>
/// <param name="unit">The unit.</param>
public sealed class StateWriter(PartId unit)
{
    private readonly List<StateRecord> _records = [];

    /// <summary>Adds a record.</summary>
    /// <exception cref="InvalidOperationException">There is one of this kind already, or too many.</exception>
    public void Write<T>(StateShape<T> shape, T record) where T : class
    {
        RequireRoom(shape.Kind);
        _records.Add(new StateRecord(shape.Kind, shape.Version, JsonSerializer.SerializeToUtf8Bytes(record, shape.Json)));
    }

    /// <summary>Adds a record that has a written form of its own.</summary>
    /// <param name="kind">What it holds.</param>
    /// <param name="version">Version of its form.</param>
    /// <param name="json">The record.</param>
    public void WriteJson(string kind, int version, JsonElement json)
    {
        RequireRoom(kind);
        _records.Add(new StateRecord(kind, version, Encoding.UTF8.GetBytes(json.GetRawText())));
    }

    /// <summary>What was written.</summary>
    public UnitBlob ToBlob() => new(unit, [.. _records]);

    private void RequireRoom(string kind)
    {
        if (_records.Exists(r => string.Equals(r.Kind, kind, StringComparison.Ordinal)) || _records.Count == StateDocument.MaxRecords)
        {
            throw new InvalidOperationException($"{unit}: a second record '{kind}', or more than {StateDocument.MaxRecords}.");
        }
    }
}
