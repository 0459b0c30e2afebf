using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>
/// Removes the oldest points. The oldest that stays gets whole disks first, made of what it stands on; newer ones are never touched, since
/// what they stand on has the same content, and so the same root, as before.
/// </summary>
public static class BackupPruner
{
    /// <summary>Prunes. Whatever dies, every point that is there can be restored.</summary>
    /// <param name="path">The folder of points.</param>
    /// <param name="keep">How many of the newest points stay; 1 or more.</param>
    /// <param name="progress">What to tell.</param>
    /// <returns>How many are gone.</returns>
    /// <exception cref="BlockException">The oldest that stays cannot be made whole, the folder is in use or full, or the host failed.
    /// </exception>
    public static int Run(string path, int keep, ToolProgress? progress = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(keep, 1);
        _ = BackupFolder.Open(path); // a name that is mistyped makes no folder
        using IDisposable held = BackupFolder.Lock(path);
        BackupFolder folder = BackupFolder.Open(path);
        StoredPoint[] gone = [.. folder.Points.SkipLast(keep)];
        if (gone.Length == 0)
        {
            return 0;
        }

        StoredPoint oldest = folder.Require(folder.Points[gone.Length].Number);
        try
        {
            MakeWhole(folder, oldest, gone[^1], progress ?? ToolProgress.None);
            foreach (StoredPoint point in gone.Reverse()) // what others stand on goes last
            {
                BackupFolder.Remove(folder.FolderPath, point);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DeltaFormat.Failed(path, "cannot be pruned", e);
        }

        return gone.Length;
    }

    private static void MakeWhole(BackupFolder folder, StoredPoint point, StoredPoint last, ToolProgress progress)
    {
        BackupPoint stored = point.Point!;
        string[] known = [.. stored.Disks.Select(disk => disk.File), BackupFolder.PointFile];
        foreach (string file in Directory.GetFiles(point.Folder))
        {
            if (!known.Contains(Path.GetFileName(file), StringComparer.Ordinal))
            {
                File.Delete(file); // of one that died here
            }
        }

        BackupDisk[] old = [.. stored.Disks.Where(disk => disk.Parent is not null)];
        if (old.Length == 0)
        {
            return;
        }

        BackupDisk[] disks = [.. stored.Disks.Select(disk =>
            disk.Parent is null ? disk : Merge(folder, point, disk, last.Number, progress))];
        BackupFolder.WritePoint(point.Folder, stored with { Disks = disks });
        foreach (BackupDisk disk in old)
        {
            File.Delete(Path.Combine(point.Folder, disk.File));
        }
    }

    private static BackupDisk Merge(BackupFolder folder, StoredPoint point, BackupDisk disk, int last, ToolProgress progress)
    {
        string file = disk.Name + ".full.delta";
        using PointDisk source = PointDisk.Open(folder, point, disk.Name);
        DeltaHeader header = new()
        {
            Disk = disk.Name,
            DiskBytes = source.DiskBytes,
            Owner = point.Point!.Owner,
            Point = point.Point.Id,
        };
        using DeltaWriter writer = new(Path.Combine(point.Folder, file), header);
        source.Walk(progress, (extent, content) => writer.Add(extent, content, source.Current.Leaf.Span));
        byte[] seal = writer.Finish(source.Root);
        return disk with
        {
            File = file,
            Parent = null,
            Why = $"points up to {last} were pruned",
            Stored = writer.Bytes,
            Extents = writer.Entries,
            Seal = Convert.ToHexStringLower(seal),
        };
    }
}
