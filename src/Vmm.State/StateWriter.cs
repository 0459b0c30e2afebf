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
        if (_records.Exists(r => string.Equals(r.Kind, shape.Kind, StringComparison.Ordinal)) || _records.Count == StateDocument.MaxRecords)
        {
            throw new InvalidOperationException($"{unit}: a second record '{shape.Kind}', or more than {StateDocument.MaxRecords}.");
        }

        _records.Add(new StateRecord(shape.Kind, shape.Version, JsonSerializer.SerializeToUtf8Bytes(record, shape.Json)));
    }

    /// <summary>What was written.</summary>
    public UnitBlob ToBlob() => new(unit, [.. _records]);
}
