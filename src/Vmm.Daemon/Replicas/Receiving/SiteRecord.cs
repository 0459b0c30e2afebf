using System.Text.Json.Serialization;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>How far a failover has come.</summary>
internal enum FailoverStep
{
    /// <summary>Its VM is about to be made. A vmmd that finds that looks whether it was.</summary>
    Making,

    /// <summary>Its VM is in the inventory, unless somebody deleted it.</summary>
    Made,

    /// <summary>Its VM is about to go. A vmmd that finds that goes on with it.</summary>
    Cancelling,
}

/// <summary>A failover: a VM on a point.</summary>
/// <param name="Vm">The VM's name here.</param>
/// <param name="Point">The number of the point.</param>
/// <param name="Id">The id of the point.</param>
/// <param name="Step">How far it has come.</param>
/// <param name="Before">The generations as they were before it.</param>
internal sealed record FailoverRecord(string Vm, int Point, string Id, FailoverStep Step, ReplicaGenerations Before);

/// <summary>A test failover: another VM on a point.</summary>
/// <param name="Vm">The VM's name here.</param>
/// <param name="VmId">The VM's id here.</param>
/// <param name="Point">The number of the point.</param>
internal sealed record TestRecord(string Vm, string VmId, int Point);

/// <summary>What <c>site.json</c> says of a replica: all that is not in its points. One writer: <see cref="Replica"/>.</summary>
internal sealed record SiteRecord
{
    /// <summary>Version of the format.</summary>
    internal const int Known = 1;

    /// <summary>Version of the format; 1.</summary>
    public required int Format { get; init; }

    /// <summary>The VM's id.</summary>
    public required string Vm { get; init; }

    /// <summary>The VM's name at the primary; the name of the folder, too.</summary>
    public required string Name { get; init; }

    /// <summary>What the primary calls itself.</summary>
    public required string Source { get; init; }

    /// <summary>Who sends: nobody else may.</summary>
    public required string Peer { get; init; }

    /// <summary>False: the primary has ended the pairing; the points stay.</summary>
    public bool IsPaired { get; init; } = true;

    /// <summary>Where it stands.</summary>
    public required ReplicaSiteState State { get; init; }

    /// <summary>Its generations.</summary>
    public required ReplicaGenerations Generations { get; init; }

    /// <summary>The disks, as they were offered last.</summary>
    public required IReadOnlyList<ReplicaDisk> Disks { get; init; }

    /// <summary>Which points are kept.</summary>
    public required ReplicaKeep Keep { get; init; }

    /// <summary>The failover; null: there is none.</summary>
    public FailoverRecord? Failover { get; init; }

    /// <summary>Test failovers.</summary>
    public IReadOnlyList<TestRecord> Tests { get; init; } = [];
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    AllowDuplicateProperties = false,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    UseStringEnumConverter = true,
    WriteIndented = true)]
[JsonSerializable(typeof(SiteRecord))]
internal sealed partial class SiteJson : JsonSerializerContext;
