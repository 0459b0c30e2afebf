using System.Globalization;
using System.Text.Json;
using Vmm.Interop;

namespace Vmm.Storage.Backup;

/// <summary>A point in a folder.</summary>
/// <param name="Number">Its place in the order; the name of its folder.</param>
/// <param name="Folder">Its folder.</param>
/// <param name="Point">What it says of itself; null when that cannot be read.</param>
/// <param name="Problem">Why it cannot be read.</param>
public sealed record StoredPoint(int Number, string Folder, BackupPoint? Point, string? Problem);

/// <summary>
/// A folder of points, each a folder with a number for a name. A point is written under another name and renamed, so it is whole or not
/// there. What is read may be anything.
/// </summary>
public sealed class BackupFolder
{
    /// <summary>The file that says what a point has.</summary>
    internal const string PointFile = "point.json";

    private const string PartPrefix = ".part-", LockFile = ".lock";
    private const int MostPointBytes = 1 << 20, MostDisks = 256, Digits = 6;

    private BackupFolder(string path, IReadOnlyList<StoredPoint> points) => (FolderPath, Points) = (path, points);

    /// <summary>The folder.</summary>
    public string FolderPath { get; }

    /// <summary>Its points, in their order.</summary>
    public IReadOnlyList<StoredPoint> Points { get; }

    /// <summary>Reads what points there are.</summary>
    /// <exception cref="BlockException">The folder is not there or cannot be read.</exception>
    public static BackupFolder Open(string path)
    {
        string folder = Path.GetFullPath(path);
        try
        {
            StoredPoint[] points = [.. Directory.EnumerateDirectories(folder)
                .Select(each => (Folder: each, Number: NumberOf(Path.GetFileName(each))))
                .Where(each => each.Number > 0)
                .OrderBy(each => each.Number)
                .Select(each => ReadPoint(each.Folder, each.Number))];
            return new BackupFolder(folder, points);
        }
        catch (DirectoryNotFoundException e)
        {
            throw new BlockException(BlockErrorKind.NotFound, $"folder {path} is not there: no backup was made in it", e)
            { Path = path };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"folder {path} cannot be read: {e.Message}", e) { Path = path };
        }
    }

    /// <summary>A point by its number, or the newest one.</summary>
    /// <exception cref="BlockException">There is none, or it cannot be read.</exception>
    public StoredPoint Require(int? number)
    {
        StoredPoint? found = number is not null ? Points.FirstOrDefault(point => point.Number == number)
            : Points.Count > 0 ? Points[^1]
            : null;
        string which = number is null ? "no points" : $"no point {number}; vmmctl backup list {FolderPath} tells which it has";
        return found is null ? throw new BlockException(BlockErrorKind.NotFound, $"folder {FolderPath} has {which}") { Path = FolderPath }
            : found.Point is null
                ? throw new BlockException(BlockErrorKind.Damaged, $"point {found.Number} of {FolderPath}: {found.Problem}")
                { Path = found.Folder }
            : found;
    }

    /// <summary>The point with an id; null without one.</summary>
    internal StoredPoint? Find(Guid id) => Points.FirstOrDefault(point => point.Point?.Id == id);

    /// <summary>The name of the folder of a point.</summary>
    internal static string NameOf(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(Digits, '0');

    /// <summary>
    /// Makes the folder when it is not there, and keeps others from writing it. What a backup that died left is removed.
    /// </summary>
    /// <exception cref="BlockException">Another writes it, or the host failed.</exception>
    internal static IDisposable Lock(string path)
    {
        string folder = Path.GetFullPath(path);
        try
        {
            if (!Directory.Exists(folder))
            {
                _ = Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            }

            FileStream held = new(Path.Combine(folder, LockFile), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            foreach (string left in Directory.GetDirectories(folder, PartPrefix + "*"))
            {
                Directory.Delete(left, recursive: true);
            }

            return held;
        }
        catch (IOException e) when ((e.HResult & 0xffff) == 11) // EWOULDBLOCK of flock(2)
        {
            throw new BlockException(
                BlockErrorKind.InUse, $"folder {path} is in use: another backup is being made or pruned there; wait for its end", e)
            { Path = path };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"folder {path} cannot be written: {e.Message}", e) { Path = path };
        }
    }

    /// <summary>Begins a point: a folder that is no point yet.</summary>
    internal static string Begin(string folder, int number) =>
        Directory.CreateDirectory(Path.Combine(folder, PartPrefix + NameOf(number))).FullName;

    /// <summary>All its files are stable: it becomes a point.</summary>
    internal static void Complete(string part, string folder, int number, BackupPoint point)
    {
        WritePoint(part, point);
        Directory.Move(part, Path.Combine(folder, NameOf(number)));
        HostFolder.Flush(folder);
    }

    /// <summary>Writes what a point says of itself; there is the old text or the new one, never a part.</summary>
    internal static void WritePoint(string folder, BackupPoint point)
    {
        string made = Path.Combine(folder, PointFile + ".new");
        using (FileStream file = new(made, FileMode.Create, FileAccess.Write, FileShare.None))
        {
            JsonSerializer.Serialize(file, point, BackupJson.Default.BackupPoint);
            file.Flush(flushToDisk: true);
        }

        File.Move(made, Path.Combine(folder, PointFile), overwrite: true);
        HostFolder.Flush(folder);
    }

    /// <summary>Removes a point: it is whole or gone.</summary>
    internal static void Remove(string folder, StoredPoint point)
    {
        string left = Path.Combine(folder, PartPrefix + NameOf(point.Number));
        Directory.Move(point.Folder, left);
        HostFolder.Flush(folder);
        Directory.Delete(left, recursive: true);
    }

    private static int NumberOf(string name) =>
        name.Length >= Digits && name.All(char.IsAsciiDigit) && int.TryParse(name, CultureInfo.InvariantCulture, out int number)
            && string.Equals(name, NameOf(number), StringComparison.Ordinal) ? number : 0;

    private static StoredPoint ReadPoint(string folder, int number)
    {
        try
        {
            using FileStream file = File.OpenRead(Path.Combine(folder, PointFile));
            byte[] bytes = new byte[Math.Min(file.Length, MostPointBytes + 1)];
            file.ReadExactly(bytes);
            BackupPoint? point = bytes.Length > MostPointBytes ? null : JsonSerializer.Deserialize(bytes, BackupJson.Default.BackupPoint);
            string? problem = point is null ? "it has no content, or too much" : ProblemOf(point);
            return new StoredPoint(number, folder, problem is null ? point : null, problem is null ? null : $"its {PointFile}: {problem}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            return new StoredPoint(number, folder, null, $"its {PointFile} cannot be read: {e.Message}");
        }
    }

    private static string? ProblemOf(BackupPoint point) =>
        point.Format != 1 ? $"format {point.Format} is not known to this program, which reads 1"
        : point.Id == Guid.Empty || point.Owner == Guid.Empty || point.Name.Length is 0 or > 255 || point.Name.Any(char.IsControl)
            ? "id, owner and name are needed"
        : point.Quiesced is { Length: > 500 } ? "quiesced is too long"
        : point.Disks.Count is 0 or > MostDisks ? $"{point.Disks.Count} disks"
        : point.Disks.Any(disk => disk is null || !DeltaFormat.IsName(disk.Name) || !DeltaFormat.IsName(disk.File) || disk.Why?.Length > 500
            || disk.Size == 0 || disk.Size % 512 != 0 || disk.Size > DeltaFormat.MostDiskBytes) ? "a disk without name, file or size"
        : point.Disks.DistinctBy(disk => disk.Name, StringComparer.Ordinal).Count() != point.Disks.Count ? "a disk twice"
        : null;
}
