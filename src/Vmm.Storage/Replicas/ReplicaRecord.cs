namespace Vmm.Storage.Replicas;

/// <summary>What <c>replica.json</c> says: whose replica a folder is.</summary>
internal sealed record ReplicaRecord
{
    /// <summary>Version of the format; 1.</summary>
    public required int Format { get; init; }

    /// <summary>The VM's id.</summary>
    public required Guid Owner { get; init; }
}
