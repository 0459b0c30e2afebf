using System.Text.Json.Serialization;

namespace Vmm.Storage.Backup;

/// <summary>A point of a backup: what <c>point.json</c> says. It is there only when all its disks are.</summary>
public sealed record BackupPoint
{
    /// <summary>Version of the format; 1.</summary>
    public required int Format { get; init; }

    /// <summary>The point.</summary>
    public required Guid Id { get; init; }

    /// <summary>Whose disks they are: a VM's id, or one made of the name that a backup of plain files was given.</summary>
    public required Guid Owner { get; init; }

    /// <summary>The name of that when the point was made.</summary>
    public required string Name { get; init; }

    /// <summary>When the disks were as they are here.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>Whether the guest's file systems were frozen at that instant, and how that went; null when it was not asked for.</summary>
    public string? Quiesced { get; init; }

    /// <summary>The disks.</summary>
    public required IReadOnlyList<BackupDisk> Disks { get; init; }
}

/// <summary>A disk of a point.</summary>
/// <param name="Name">Its name, such as <c>disk0</c>.</param>
/// <param name="File">The file in the point's folder.</param>
/// <param name="Size">Bytes of the disk.</param>
/// <param name="Parent">The point that the file stands on; null when it has the whole disk.</param>
/// <param name="Why">Why it has the whole disk; null when it has what changed.</param>
/// <param name="Stored">Bytes of the file.</param>
/// <param name="Extents">Extents of 64 KiB in it.</param>
/// <param name="Seal">The hash of the file's header and seal, in hexadecimal digits.</param>
public sealed record BackupDisk(
    string Name, string File, ulong Size, Guid? Parent, string? Why, ulong Stored, ulong Extents, string Seal);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    WriteIndented = true)]
[JsonSerializable(typeof(BackupPoint))]
internal sealed partial class BackupJson : JsonSerializerContext;
