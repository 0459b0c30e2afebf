using System.Text.Json.Serialization.Metadata;

namespace Vmm.State;

/// <summary>A kind of saved record and one version of its shape. A shape never changes; what grows gets the next version.</summary>
public abstract class StateShape
{
    private protected StateShape(string kind, int version)
    {
        if (!PartId.IsName(kind) || version is < 1 or > MaxVersion)
        {
            throw new ArgumentException($"'{kind}' version {version} is no kind of record.", nameof(kind));
        }

        Kind = kind;
        Version = version;
    }

    /// <summary>Highest version a kind can have.</summary>
    public const int MaxVersion = 9999;

    /// <summary>What the record holds.</summary>
    public string Kind { get; }

    /// <summary>Version of the shape.</summary>
    public int Version { get; }

    /// <summary>Its fields.</summary>
    public abstract JsonTypeInfo Fields { get; }
}

/// <summary>A <see cref="StateShape"/> and the type that has it.</summary>
/// <typeparam name="T">A record of plain data, of its own: no live object is saved.</typeparam>
/// <param name="kind">What it holds.</param>
/// <param name="version">Version of the shape.</param>
/// <param name="json">Its fields, from a source-generated context.</param>
public sealed class StateShape<T>(string kind, int version, JsonTypeInfo<T> json) : StateShape(kind, version) where T : class
{
    /// <summary>How it is written.</summary>
    public JsonTypeInfo<T> Json { get; } = json;

    /// <inheritdoc/>
    public override JsonTypeInfo Fields => Json;
}
