using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Inventory;

/// <summary>The seed of a VM's first start, as the inventory knows it.</summary>
/// <param name="File">Its file's name in the folder of seeds.</param>
/// <param name="Sha256">Of the disk: the same again is no change, also when it was deleted.</param>
/// <param name="Once">It is for one run.</param>
/// <param name="IsUsed">That run has begun.</param>
/// <param name="IsDeleted">That run is over, and the file is gone.</param>
public sealed record SeedRecord(string File, string Sha256, bool Once, bool IsUsed = false, bool IsDeleted = false)
{
    /// <summary>As the inventory keeps it.</summary>
    internal string ToText() => JsonSerializer.Serialize(this, SeedJson.Default.SeedRecord);

    /// <summary>From the inventory; null: nothing that can be read.</summary>
    internal static SeedRecord? Parse(string text)
    {
        try
        {
            return JsonSerializer.Deserialize(text, SeedJson.Default.SeedRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>How the inventory writes it.</summary>
[JsonSerializable(typeof(SeedRecord))]
internal sealed partial class SeedJson : JsonSerializerContext;
