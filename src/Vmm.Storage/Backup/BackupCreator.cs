using System.Security.Cryptography;
using System.Text;
using Vmm.Interop;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>A disk to be backed up.</summary>
/// <param name="Name">Its name in the backup, such as <c>disk0</c>.</param>
/// <param name="Path">Its file, the top of its chain.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>.</param>
public sealed record BackupSource(string Name, string Path, string Format);

/// <summary>How a backup is made.</summary>
public sealed record BackupWish
{
    /// <summary>The folder of points; made when it is not there.</summary>
    public required string Folder { get; init; }

    /// <summary>Whose disks they are.</summary>
    public required Guid Owner { get; init; }

    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>When the disks were as they are read.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>Whether the guest was frozen at that instant; null when it was not asked for.</summary>
    public string? Quiesced { get; init; }

    /// <summary>All of each disk is stored, whatever the point before has.</summary>
    public bool Full { get; init; }

    /// <summary>Most bytes to read in a second; null is without a limit.</summary>
    public ulong? BytesPerSecond { get; init; }

    /// <summary>The owner of a backup of plain files with this name.</summary>
    public static Guid OwnerOf(string name) => new(SHA256.HashData(Encoding.UTF8.GetBytes("files:" + name)).AsSpan(0, 16), bigEndian: true);
}

/// <summary>
/// Makes a point of a backup. Each disk is read and compared, extent by extent, with the hashes of the point before: what differs is
/// stored, whatever was told about it before. So no record of changes has to be trusted, and a disk that was changed behind everybody's
/// back is no trouble.
/// </summary>
public static class BackupCreator
{
    /// <summary>Makes the point. Before this returns the folder has its old points and nothing else that counts.</summary>
    /// <param name="sources">The disks; none is written meanwhile, which their locks see to.</param>
    /// <param name="wish">How.</param>
    /// <param name="progress">What to tell.</param>
    /// <param name="open">Opens a file of a disk to read, or throws; null: any that this user may read.</param>
    /// <returns>The point.</returns>
    /// <exception cref="BlockException">A disk cannot be read or is in use; the folder cannot be written, is in use, is full, or has
    /// backups of somebody else.</exception>
    public static StoredPoint Run(
        IReadOnlyList<BackupSource> sources,
        BackupWish wish,
        ToolProgress? progress = null,
        Func<string, FileDescriptorHandle>? open = null)
    {
        progress ??= ToolProgress.None;
        List<ImageChain> chains = [];
        using IDisposable held = BackupFolder.Lock(wish.Folder);
        BackupFolder folder = BackupFolder.Open(wish.Folder);
        RequireOwn(folder, wish);
        int number = folder.Points.Count == 0 ? 1 : folder.Points[^1].Number + 1;
        string part = BackupFolder.Begin(folder.FolderPath, number);
        try
        {
            // All are open, and so locked, before the first is read: they are of one instant.
            foreach (BackupSource source in sources)
            {
                chains.Add(ImageChain.Open(source.Path, source.Format, open));
            }

            progress.Begin(chains.Aggregate(0ul, (sum, chain) => sum + chain.Size));
            BackupPace pace = new(wish.BytesPerSecond, progress);
            Guid id = Guid.NewGuid();
            BackupDisk[] disks = [.. sources.Select((source, i) => Store(source, chains[i], folder, part, id, wish, pace))];
            BackupPoint point = new()
            {
                Format = 1,
                Id = id,
                Owner = wish.Owner,
                Name = wish.Name,
                Time = wish.Time,
                Quiesced = wish.Quiesced,
                Disks = disks,
            };
            progress.Advance(0); // the last moment to give up
            BackupFolder.Complete(part, folder.FolderPath, number, point);
            return new StoredPoint(number, Path.Combine(folder.FolderPath, BackupFolder.NameOf(number)), point, null);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DeltaFormat.Failed(part, "cannot become a point", e);
        }
        finally
        {
            chains.ForEach(chain => chain.Dispose());
            if (Directory.Exists(part))
            {
                Directory.Delete(part, recursive: true);
            }
        }
    }

    private static void RequireOwn(BackupFolder folder, BackupWish wish)
    {
        if (folder.Points.FirstOrDefault(point => point.Point is { } known && known.Owner != wish.Owner) is { } other)
        {
            throw new BlockException(
                BlockErrorKind.InUse,
                $"folder {wish.Folder} has backups of another one, {other.Point!.Name}; {wish.Name} needs a folder of its own")
            { Path = wish.Folder };
        }
    }

    private static BackupDisk Store(
        BackupSource source, ImageChain chain, BackupFolder folder, string part, Guid point, BackupWish wish, BackupPace pace)
    {
        ulong size = (chain.Size + 511) & ~511ul;
        if (!DeltaFormat.IsName(source.Name) || size == 0 || size > DeltaFormat.MostDiskBytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {source.Path} cannot be backed up as {source.Name}: {size} bytes, of at most 64 TiB")
            { Path = source.Path };
        }

        (PointDisk? parent, StoredPoint? before, string? why) = FindParent(source.Name, size, folder, wish);
        using (parent)
        {
            DeltaHeader header = new()
            {
                Disk = source.Name,
                DiskBytes = size,
                Owner = wish.Owner,
                Point = point,
                Parent = before?.Point?.Id ?? Guid.Empty,
                ParentRoot = parent?.Root ?? new byte[DeltaFormat.HashBytes],
            };
            string file = source.Name + ".delta";
            using DeltaWriter writer = new(Path.Combine(part, file), header);
            using DiskTree tree = new(size);
            new DiskScan(chain, parent, writer, tree, pace).Run();
            byte[] seal = writer.Finish(tree.Finish());
            return new BackupDisk(
                source.Name, file, size, before?.Point?.Id, why, writer.Bytes, writer.Entries, Convert.ToHexStringLower(seal));
        }
    }

    // The point before, or why all of the disk has to be stored.
    private static (PointDisk? Parent, StoredPoint? Before, string? Why) FindParent(
        string disk, ulong size, BackupFolder folder, BackupWish wish)
    {
        StoredPoint? before = folder.Points.Count == 0 ? null : folder.Points[^1];
        string? why = wish.Full ? "it was asked for"
            : before is null ? "it is the first backup"
            : before.Point is null ? $"point {before.Number} cannot be read"
            : before.Point.Disks.All(each => !string.Equals(each.Name, disk, StringComparison.Ordinal))
                ? $"point {before.Number} does not have the disk"
            : null;
        if (why is not null)
        {
            return (null, null, why);
        }

        try
        {
            PointDisk parent = PointDisk.Open(folder, before!, disk);
            why = parent.DiskBytes > size ? $"the disk is smaller than at point {before!.Number}"
                : parent.Deltas >= PointDisk.MostDeltas ? $"{parent.Deltas} points stand on each other, as many as may"
                : null;
            if (why is null)
            {
                return (parent, before, null);
            }

            parent.Dispose();
        }
        catch (BlockException e)
        {
            why = e.Message.Length < 300 ? e.Message : e.Message[..300];
        }

        return (null, null, why);
    }
}
