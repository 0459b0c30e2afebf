using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Inventory;

/// <summary>How a VM moves.</summary>
public enum MoveKind
{
    /// <summary>To a new worker of this host.</summary>
    Upgrade,

    /// <summary>To another host.</summary>
    Outgoing,

    /// <summary>From another host: the VM is not this host's yet, and the table of decisions says whether it is to be.</summary>
    Incoming,
}

/// <summary>What is certain of a move, in the order in which it becomes so.</summary>
public enum MoveStep
{
    /// <summary>The VM is in its first worker, whatever else there is.</summary>
    Begun,

    /// <summary>The VM is not in its first worker any more: that one only has to end.</summary>
    Committed,

    /// <summary>The first worker is gone, and the other one is about to get its names.</summary>
    SourceGone,

    /// <summary>
    /// The VM stands still, and its disks are let go of: it is where the other host says, and here only when that host says so.
    /// </summary>
    Asking,
}

/// <summary>
/// A move of a VM that goes on. Written before each step is taken, so that a daemon that comes later knows which worker counts.
/// </summary>
/// <param name="Id">Names the move: 32 hexadecimal digits.</param>
/// <param name="Kind">Which.</param>
/// <param name="Step">How far it is.</param>
/// <param name="WasPaused">The VM was paused when it began.</param>
/// <param name="Peer">The vmmd of the other host, of one that goes there.</param>
public sealed record MoveRecord(string Id, MoveKind Kind, MoveStep Step, bool WasPaused, string? Peer = null)
{
    /// <summary>Only the other host's word says where the VM is.</summary>
    internal bool IsUnsettled => Kind == MoveKind.Outgoing && Step == MoveStep.Asking;

    /// <summary>A new one.</summary>
    internal static MoveRecord Begin(MoveKind kind, bool wasPaused) =>
        new(Guid.NewGuid().ToString("N"), kind, MoveStep.Begun, wasPaused);

    /// <summary>As the inventory keeps it.</summary>
    internal string ToText() => JsonSerializer.Serialize(this, MoveJson.Default.MoveRecord);

    /// <summary>From the inventory; null: nothing that can be read.</summary>
    internal static MoveRecord? Parse(string text)
    {
        try
        {
            return JsonSerializer.Deserialize(text, MoveJson.Default.MoveRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>How the inventory writes it.</summary>
[JsonSourceGenerationOptions(UseStringEnumConverter = true)]
[JsonSerializable(typeof(MoveRecord))]
internal sealed partial class MoveJson : JsonSerializerContext;
