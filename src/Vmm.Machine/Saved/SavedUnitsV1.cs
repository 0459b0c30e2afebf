namespace Vmm.Machine.Saved;

/// <summary>The units that a saved machine had, version 1; its shape never changes. A document that lacks one is damaged.</summary>
public sealed record SavedUnitsV1
{
    /// <summary>Name of the record in a saved VM.</summary>
    public const string Kind = "units";

    /// <summary>Version of this shape.</summary>
    public const int Version = 1;

    /// <summary>Their names.</summary>
    public required IReadOnlyList<string> Names { get; init; }
}
