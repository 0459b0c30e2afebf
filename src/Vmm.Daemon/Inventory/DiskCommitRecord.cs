using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Inventory;

/// <summary>
/// A disk that is being committed into an image of its own chain. The spec says which file is the disk: with <paramref name="Base"/> in it
/// the commit succeeded. Neither file is ever removed because of this record.
/// </summary>
/// <param name="Disk">Its name in the running VM.</param>
/// <param name="Source">The top, as the spec named it.</param>
/// <param name="Base">The image that gets the content.</param>
/// <param name="IsImage">The base is a qcow2 image; otherwise it is raw.</param>
public sealed record DiskCommitRecord(string Disk, string Source, string Base, bool IsImage)
{
    /// <summary>As the inventory keeps it.</summary>
    internal string ToText() => JsonSerializer.Serialize(this, DiskCommitJson.Default.DiskCommitRecord);

    /// <summary>From the inventory; null: nothing that can be read.</summary>
    internal static DiskCommitRecord? Parse(string text)
    {
        try
        {
            return JsonSerializer.Deserialize(text, DiskCommitJson.Default.DiskCommitRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>How the inventory writes it.</summary>
[JsonSerializable(typeof(DiskCommitRecord))]
internal sealed partial class DiskCommitJson : JsonSerializerContext;
