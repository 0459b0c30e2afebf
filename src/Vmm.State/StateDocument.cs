namespace Vmm.State;

/// <summary>
/// The content of <c>vm.json</c>: what the machine is, and what each unit saved. Format: docs/saved-state.md. Limits hold for writing and
/// for reading.
/// </summary>
/// <param name="Program">Version of the program that wrote it; for people.</param>
/// <param name="About">Records of the whole machine, from which it is built before any unit is restored.</param>
/// <param name="Units">One entry a unit; names differ.</param>
public sealed record StateDocument(string Program, UnitBlob About, IReadOnlyList<UnitBlob> Units)
{
    /// <summary>Name of the format, the first member of the document.</summary>
    public const string Format = "vmm-saved-state";

    /// <summary>Version of the container. Records have versions of their own.</summary>
    public const int Version = 1;

    /// <summary>Name of <see cref="About"/>; no unit has it.</summary>
    public const string AboutName = "about";

    /// <summary>Most bytes of a document: 1024 vCPUs need about 30 KB each.</summary>
    public const int MaxBytes = 64 << 20;

    /// <summary>Most units.</summary>
    public const int MaxUnits = 4096;

    /// <summary>Most records of one unit.</summary>
    public const int MaxRecords = 16;

    /// <summary>Deepest nesting of a record.</summary>
    public const int MaxDepth = 16;

    /// <summary>Longest text about the program.</summary>
    public const int MaxProgram = 64;
}
