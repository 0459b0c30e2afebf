namespace Vmm.State;

/// <summary>One record of a unit, as it lies in a document.</summary>
/// <param name="Kind">What it holds.</param>
/// <param name="Version">Version of its shape.</param>
/// <param name="Data">JSON, UTF-8.</param>
public readonly record struct StateRecord(string Kind, int Version, ReadOnlyMemory<byte> Data);

/// <summary>What one unit saved.</summary>
/// <param name="Name">The unit.</param>
/// <param name="Records">Its records, at most one of a kind.</param>
public sealed record UnitBlob(PartId Name, IReadOnlyList<StateRecord> Records);
