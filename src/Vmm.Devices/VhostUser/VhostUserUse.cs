using Vmm.Memory;

namespace Vmm.Devices.VhostUser;

/// <summary>How a device uses back ends.</summary>
internal sealed record VhostUserUse
{
    /// <summary>Names threads and messages, e.g. <c>fs0</c>.</summary>
    internal required string Name { get; init; }

    /// <summary>Where back ends come from.</summary>
    internal required VhostUserLink Link { get; init; }

    /// <summary>All memory that the guest may ever have.</summary>
    internal required IReadOnlyList<MemoryExtent> Memory { get; init; }

    /// <summary>Answers while no back end is there; null: the driver waits.</summary>
    internal IOrphanHandler? Orphan { get; init; }

    /// <summary>What back ends complete is counted all the time.</summary>
    internal bool Counts { get; init; }

    /// <summary>Back ends complete what is in a ring in order.</summary>
    internal bool InOrder { get; init; }
}
