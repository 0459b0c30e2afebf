using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>Makes disks of a point, and checks points. Blocking, for one thread.</summary>
public static class BackupRestorer
{
    /// <summary>Writes a disk of a point into a new file. Under its name there is the whole disk, or nothing.</summary>
    /// <param name="folder">The folder of points.</param>
    /// <param name="point">The point.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="target">The new file.</param>
    /// <param name="format"><c>raw</c> or <c>qcow2</c>.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">The point is damaged, the file exists or cannot be made, or the host failed.</exception>
    public static void Restore(
        BackupFolder folder, StoredPoint point, string disk, string target, string format, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        using PointDisk source = PointDisk.Open(folder, point, disk);
        using NewImageFile made = NewImageFile.Create(target, replace: false);
        if (string.Equals(format, "qcow2", StringComparison.Ordinal))
        {
            Qcow2Builder builder = new(made.File, new Qcow2CreateOptions { DiskSize = source.DiskBytes });
            source.Walk(progress, (extent, content) => builder.AddData(extent * DeltaFormat.ExtentBytes, content));
            _ = builder.Finish(progress);
        }
        else
        {
            made.File.Grow(source.DiskBytes);
            source.Walk(progress, (extent, content) =>
            {
                ulong at = extent * DeltaFormat.ExtentBytes;
                made.File.Write(content.AsSpan(0, (int)Math.Min(DeltaFormat.ExtentBytes, source.DiskBytes - at)), at);
            });
        }

        made.Complete();
    }

    /// <summary>Reads a disk of a point with all that it stands on, and computes its tree anew.</summary>
    /// <param name="folder">The folder of points.</param>
    /// <param name="point">The point.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">Something is damaged: the file, and the extent when there is one.</exception>
    public static void Verify(BackupFolder folder, StoredPoint point, string disk, ToolProgress? progress = null)
    {
        using PointDisk source = PointDisk.Open(folder, point, disk);
        source.Walk(progress ?? ToolProgress.None, (_, _) => { });
    }
}
