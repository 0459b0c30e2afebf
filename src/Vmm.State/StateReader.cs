using System.Text.Json;

namespace Vmm.State;

/// <summary>Gives the records of one unit. They are untrusted: the shape is checked here, the values by who takes them.</summary>
/// <param name="blob">What the unit saved.</param>
public sealed class StateReader(UnitBlob blob)
{
    private readonly HashSet<string> _taken = [];

    /// <summary>The unit.</summary>
    public PartId Unit => blob.Name;

    /// <summary>Version of the record of a kind; 0: there is none.</summary>
    public int VersionOf(string kind) => Find(kind) is { } record ? record.Version : 0;

    /// <summary>Reads a record that has to be there.</summary>
    /// <exception cref="StateException">It is missing, of another version, or not of its shape.</exception>
    public T Read<T>(StateShape<T> shape) where T : class =>
        TryRead(shape) ?? throw new StateException($"{Unit}: the record '{shape.Kind}' is missing.");

    /// <summary>Reads a record; null when the unit saved none.</summary>
    /// <exception cref="StateException">It is of another version, or not of its shape.</exception>
    public T? TryRead<T>(StateShape<T> shape) where T : class
    {
        if (Find(shape.Kind) is not { } record)
        {
            return null;
        }

        RequireVersion(record, shape.Version);

        try
        {
            T value = JsonSerializer.Deserialize(record.Data.Span, shape.Json)
                ?? throw new StateException($"{Unit}: the record '{shape.Kind}' is null.");
            _taken.Add(shape.Kind);
            return value;
        }
        catch (Exception cause) when (cause is JsonException or NotSupportedException or InvalidOperationException or FormatException)
        {
            throw new StateException(
                $"{Unit}: the record '{shape.Kind}' is not of its shape ({StateText.Printable(cause.Message)}).", cause);
        }
    }

    /// <summary>A record that has a written form of its own and has to be there. Whoever reads the form checks it.</summary>
    /// <exception cref="StateException">It is missing, or of another version.</exception>
    public JsonElement ReadJson(string kind, int version)
    {
        StateRecord record = Find(kind) ?? throw new StateException($"{Unit}: the record '{kind}' is missing.");
        RequireVersion(record, version);
        _taken.Add(kind);
        using JsonDocument json = JsonDocument.Parse(record.Data);
        return json.RootElement.Clone();
    }

    /// <summary>Every record was taken: one that nobody knows would be state that is lost in silence.</summary>
    /// <exception cref="StateException">One was not.</exception>
    public void RequireAllTaken()
    {
        foreach (StateRecord record in blob.Records)
        {
            if (!_taken.Contains(record.Kind))
            {
                throw new StateException($"{Unit}: this machine has no place for its record '{record.Kind}' version {record.Version}.");
            }
        }
    }

    private void RequireVersion(StateRecord record, int version)
    {
        if (record.Version != version)
        {
            throw new StateException(
                $"{Unit}: the record '{record.Kind}' has version {record.Version}; this release reads version {version}.");
        }
    }

    private StateRecord? Find(string kind)
    {
        foreach (StateRecord record in blob.Records)
        {
            if (string.Equals(record.Kind, kind, StringComparison.Ordinal))
            {
                return record;
            }
        }

        return null;
    }
}
