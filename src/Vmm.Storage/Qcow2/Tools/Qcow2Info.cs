namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What an image says of itself.</summary>
/// <param name="Header">Its header.</param>
/// <param name="FileBytes">Length of the file.</param>
/// <param name="Snapshots">Its internal snapshots.</param>
/// <param name="Bitmaps">Its bitmaps; empty when they cannot be believed.</param>
/// <param name="Problems">What of these could not be read.</param>
public sealed record Qcow2Info(
    Qcow2Header Header,
    ulong FileBytes,
    IReadOnlyList<Qcow2Snapshot> Snapshots,
    IReadOnlyList<Qcow2Bitmap> Bitmaps,
    IReadOnlyList<string> Problems)
{
    /// <summary>Reads it.</summary>
    /// <exception cref="BlockException">It is no image, or not one that this program can read.</exception>
    public static Qcow2Info Read(IImageFile file)
    {
        Qcow2Header header = ImageFiles.ReadHeader(file);
        List<string> problems = [];
        List<Qcow2Snapshot> snapshots = SnapshotTable.Read(file, header, (_, text) => problems.Add(text), out _);
        List<Qcow2Bitmap> bitmaps = BitmapDirectory.Read(file, header, (_, text) => problems.Add(text));
        return new Qcow2Info(header, file.Length, snapshots, bitmaps, problems);
    }
}
