using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Storage;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Disks;

/// <summary>A point as <c>backup create</c> and <c>backup list</c> print it.</summary>
internal sealed record PointView(
    int Number,
    string Folder,
    DateTimeOffset? Time = null,
    string? Name = null,
    string? Kind = null,
    string? Quiesced = null,
    IReadOnlyList<BackupDisk>? Disks = null,
    string? Problem = null);

/// <summary>A disk that <c>backup restore</c> made or <c>backup verify</c> read.</summary>
internal sealed record PointDiskView(int Number, string Disk, string? File = null, string? Problem = null);

/// <summary>What the verbs for backups print.</summary>
internal static class BackupView
{
    internal static int List(DaemonSession session, BackupFolder folder)
    {
        if (session.IsJson)
        {
            return session.Json<IReadOnlyList<PointView>>([.. folder.Points.Select(View)], DiskFileJson.Default.IReadOnlyListPointView);
        }

        Table table = new("POINT", "TIME", "KIND", "DISKS", "STORED", "QUIESCED", "WHY");
        foreach (PointView point in folder.Points.Select(View))
        {
            string disks = point.Disks is null ? "-" : string.Join(", ", point.Disks.Select(disk => $"{disk.Name} {Size(disk.Size)}"));
            string stored = point.Disks is null ? "-" : Size(point.Disks.Aggregate(0ul, (sum, disk) => sum + disk.Stored));
            string why = point.Problem
                ?? string.Join("; ", point.Disks!.Select(disk => disk.Why).OfType<string>().Distinct(StringComparer.Ordinal));
            table.Add(
                Number(point.Number),
                point.Time?.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture) ?? "-",
                point.Kind ?? "damaged",
                disks,
                stored,
                point.Quiesced ?? "-",
                why);
        }

        return session.Table(table);
    }

    internal static int Created(DaemonSession session, string folder, StoredPoint made)
    {
        PointView view = View(made);
        ulong stored = made.Point!.Disks.Aggregate(0ul, (sum, disk) => sum + disk.Stored);
        return session.Done(
            view,
            DiskFileJson.Default.PointView,
            $"point {made.Number} is in {folder}: {view.Kind}, {Size(stored)} of {view.Disks!.Count} disks");
    }

    /// <summary>All points, or one; exit code 2 when something is damaged.</summary>
    internal static int Verify(DaemonSession session, BackupFolder folder, int? number, ToolProgress progress)
    {
        StoredPoint[] points = number is null ? [.. folder.Points] : [folder.Require(number)];
        List<PointDiskView> read = [];
        foreach (StoredPoint point in points)
        {
            if (point.Point is null)
            {
                read.Add(new PointDiskView(point.Number, "", Problem: point.Problem));
            }

            foreach (BackupDisk disk in point.Point?.Disks ?? [])
            {
                read.Add(new PointDiskView(point.Number, disk.Name, Problem: ProblemOf(folder, point, disk.Name, progress)));
            }
        }

        PointDiskView[] wrong = [.. read.Where(disk => disk.Problem is not null)];
        if (session.IsJson)
        {
            _ = session.Json<IReadOnlyList<PointDiskView>>(read, DiskFileJson.Default.IReadOnlyListPointDiskView);
        }
        else if (wrong.Length == 0)
        {
            session.Out.WriteLine($"{folder.FolderPath}: {read.Count} disks of {points.Length} points are as they were sealed");
        }

        foreach (PointDiskView disk in wrong)
        {
            session.Fail($"point {disk.Number}{(disk.Disk.Length == 0 ? "" : " " + disk.Disk)}: {disk.Problem}");
        }

        return wrong.Length == 0 ? ExitCodes.Done : ExitCodes.Usage;
    }

    internal static int Restore(
        DaemonSession session,
        BackupFolder folder,
        StoredPoint point,
        IReadOnlyList<string> disks,
        string to,
        string format,
        ToolProgress progress)
    {
        _ = Directory.CreateDirectory(to);
        List<PointDiskView> made = [];
        foreach (string disk in disks)
        {
            string file = Path.Combine(to, disk + (format is "qcow2" ? ".qcow2" : ".img"));
            BackupRestorer.Restore(folder, point, disk, file, format, progress);
            made.Add(new PointDiskView(point.Number, disk, file));
        }

        return session.Done<IReadOnlyList<PointDiskView>>(
            made,
            DiskFileJson.Default.IReadOnlyListPointDiskView,
            $"as at point {point.Number}: {string.Join(", ", made.Select(disk => disk.File))}");
    }

    internal static int Pruned(DaemonSession session, string folder, int gone)
    {
        IReadOnlyList<PointView> left = [.. BackupFolder.Open(folder).Points.Select(View)];
        return session.Done(
            left, DiskFileJson.Default.IReadOnlyListPointView, $"{gone} points of {folder} are gone, {left.Count} are left");
    }

    private static string? ProblemOf(BackupFolder folder, StoredPoint point, string disk, ToolProgress progress)
    {
        try
        {
            BackupRestorer.Verify(folder, point, disk, progress);
            return null;
        }
        catch (BlockException e)
        {
            return e.Message;
        }
    }

    private static PointView View(StoredPoint point) => point.Point is not { } known
        ? new PointView(point.Number, point.Folder, Problem: point.Problem)
        : new PointView(
            point.Number,
            point.Folder,
            known.Time,
            known.Name,
            known.Disks.All(disk => disk.Parent is null) ? "full" : known.Disks.Any(disk => disk.Parent is null) ? "mixed" : "delta",
            known.Quiesced,
            known.Disks);
}
