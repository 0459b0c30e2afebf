using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Inventory;

/// <summary>The replication of a VM to another site, as the inventory keeps it: what is wanted, and how far both sites are.</summary>
/// <param name="To">The vmmd of the recovery site.</param>
/// <param name="Disks">Names of the disks; null: all that can be written.</param>
/// <param name="IntervalSeconds">Seconds between cuts.</param>
/// <param name="Keep">Which points the recovery site keeps.</param>
/// <param name="BytesPerSecond">Most bytes to send in a second; null is without a limit.</param>
/// <param name="QuiesceSeconds">How long a cut may freeze the guest's file systems; null: it does not.</param>
/// <param name="Generations">What this site knows of the histories.</param>
/// <param name="Newest">The newest point that the other site has acknowledged; empty without one.</param>
/// <param name="NewestTime">When it was cut.</param>
/// <param name="WhyFull">Why all of a disk was sent the last time; null: never.</param>
/// <param name="Resync">Why hashes have to say what differs, before anything else is sent; null: nothing is to be looked for.</param>
/// <param name="Suspension">A person holds it; null: nobody does.</param>
public sealed record ReplicaSettings(
    string To, IReadOnlyList<string>? Disks, int IntervalSeconds, ReplicaKeep Keep, ulong? BytesPerSecond, int? QuiesceSeconds,
    ReplicaGenerations Generations, string Newest = "", DateTimeOffset? NewestTime = null, string? WhyFull = null,
    string? Resync = null, ReplicaSuspension? Suspension = null)
{
    /// <summary>As the inventory keeps it.</summary>
    internal string ToText() => JsonSerializer.Serialize(this, ReplicaSettingsJson.Default.ReplicaSettings);

    /// <summary>From the inventory; null: nothing that can be read.</summary>
    internal static ReplicaSettings? Parse(string text)
    {
        try
        {
            ReplicaSettings? read = JsonSerializer.Deserialize(text, ReplicaSettingsJson.Default.ReplicaSettings);
            return read is { To: not null, Keep: not null, Generations: not null, Newest: not null } ? read : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>How the inventory writes it.</summary>
[JsonSerializable(typeof(ReplicaSettings))]
internal sealed partial class ReplicaSettingsJson : JsonSerializerContext;
