namespace Vmm.Contracts.Rest;

/// <summary>A wish for an image: a file of the host that vmmd is to keep.</summary>
/// <param name="Name">Its name from then on: 1 to 64 letters, digits, <c>. _ -</c>, a letter or digit first.</param>
/// <param name="Path">
/// The file, a whole path in a storage folder of the host. One whose name ends in .xz, .gz, .zst or .bz2 is unpacked.
/// </param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>; null: it is looked at, once.</param>
public sealed record ImageRequest(string Name, string Path, string? Format = null);

/// <summary>A wish for a copy of an image.</summary>
/// <param name="To">The file to make, a whole path in a storage folder of the host.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>; null: as the image is.</param>
public sealed record ImageExportRequest(string To, string? Format = null);

/// <summary>An image that vmmd keeps, for disks of VMs to stand on. It never changes.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>.</param>
/// <param name="SizeBytes">Size of the disk, bytes.</param>
/// <param name="FileBytes">Bytes of the file that is kept.</param>
/// <param name="Sha256">SHA-256 of that file, hexadecimal.</param>
/// <param name="Source">Last part of the imported file's path.</param>
/// <param name="SourceSha256">SHA-256 of the imported file, as its publisher tells it; of a compressed one it is another.</param>
/// <param name="Imported">When.</param>
/// <param name="Path">Whole path of the file that is kept.</param>
/// <param name="UsedBy">VMs with a disk over it.</param>
public sealed record ImageInfo(
    string Name,
    string Format,
    long SizeBytes,
    long FileBytes,
    string Sha256,
    string Source,
    string SourceSha256,
    DateTimeOffset Imported,
    string Path,
    IReadOnlyList<string> UsedBy);

/// <summary>Images, by name.</summary>
/// <param name="Images">The images.</param>
public sealed record ImageList(IReadOnlyList<ImageInfo> Images);
