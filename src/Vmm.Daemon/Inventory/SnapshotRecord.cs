using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Inventory;

/// <summary>A disk that gets a differencing disk.</summary>
/// <param name="Disk">Its name.</param>
/// <param name="Source">The file that it is in, as the spec names it.</param>
/// <param name="IsImage">That file is a qcow2 image; otherwise it is raw.</param>
/// <param name="Overlay">The differencing disk.</param>
public sealed record SnapshotDiskRecord(string Disk, string Source, bool IsImage, string Overlay);

/// <summary>
/// A snapshot that is being taken. An empty differencing disk over a disk holds what the disk holds: as long as the spec names the old
/// files the overlays are nothing, and when it names the overlays it is right whether the worker has gone over to them or has died.
/// </summary>
/// <param name="Disks">The disks.</param>
public sealed record SnapshotRecord(IReadOnlyList<SnapshotDiskRecord> Disks)
{
    /// <summary>As the inventory keeps it.</summary>
    internal string ToText() => JsonSerializer.Serialize(this, SnapshotJson.Default.SnapshotRecord);

    /// <summary>From the inventory; null: nothing that can be read.</summary>
    internal static SnapshotRecord? Parse(string text)
    {
        try
        {
            return JsonSerializer.Deserialize(text, SnapshotJson.Default.SnapshotRecord);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

/// <summary>How the inventory writes it.</summary>
[JsonSerializable(typeof(SnapshotRecord))]
internal sealed partial class SnapshotJson : JsonSerializerContext;
