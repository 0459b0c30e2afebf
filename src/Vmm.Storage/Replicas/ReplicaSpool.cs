using System.Globalization;
using Vmm.Interop;
using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>
/// The primary's side of a replica: points that were cut and are not acknowledged yet, and the hashes of each disk at the newest of them. A
/// point is written under another name and renamed, so it is whole or not there. The hashes follow it, and are brought after it when a
/// death came between. One program has it; its methods may be called by several threads, but for one cut at a time.
/// </summary>
public sealed class ReplicaSpool
{
    /// <summary>How the name of a delta ends.</summary>
    internal const string DeltaSuffix = ".delta";

    private const string PartPrefix = ".part-", PointFile = "point.json", TreeSuffix = ".tree";
    private const int Digits = 6;

    private readonly Lock _lock = new(), _bringing = new();
    private readonly string _trees;
    private List<SpooledPoint> _points = [];

    private ReplicaSpool(string folder, string trees) => (FolderPath, _trees) = (folder, trees);

    /// <summary>The folder of points.</summary>
    public string FolderPath { get; }

    /// <summary>The points, the oldest first.</summary>
    public IReadOnlyList<SpooledPoint> Points
    {
        get
        {
            lock (_lock)
            {
                return _points;
            }
        }
    }

    /// <summary>Bytes of all deltas that wait.</summary>
    public ulong Bytes => Points.Aggregate(0ul, (sum, point) => sum + point.Bytes);

    /// <summary>
    /// Why points were removed when it was opened: one was damaged, and those behind it stood on that. Null: none were.
    /// </summary>
    public string? Lost { get; private set; }

    /// <summary>Tests hear of each step that a death may come behind.</summary>
    internal Action? AtStep { get; set; }

    /// <summary>Opens a spool, or makes it. What a cut that died left is removed; hashes that did not follow the newest point do.</summary>
    /// <param name="folder">The folder of points.</param>
    /// <param name="trees">The folder of the disks' hashes; another one.</param>
    /// <exception cref="BlockException">The host failed.</exception>
    public static ReplicaSpool Open(string folder, string trees)
    {
        (folder, trees) = (Path.GetFullPath(folder), Path.GetFullPath(trees));
        try
        {
            const UnixFileMode Own = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
            _ = Directory.CreateDirectory(folder, Own);
            _ = Directory.CreateDirectory(trees, Own);
            foreach (string left in Directory.GetDirectories(folder, PartPrefix + "*"))
            {
                Directory.Delete(left, recursive: true);
            }

            ReplicaSpool spool = new(folder, trees);
            spool.Load();
            spool.BringTrees();
            return spool;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be opened", e);
        }
    }

    /// <summary>The file with the hashes of a disk.</summary>
    public string TreeOf(string disk) => Path.Combine(_trees, disk + TreeSuffix);

    /// <summary>Why a disk cannot be cut as what differs from a point, so that all of it would be stored; null: it can.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="parent">The point.</param>
    public string? WhyFull(string disk, Guid parent)
    {
        try
        {
            using TreeFile tree = TreeFile.Open(TreeOf(disk));
            return ProblemOf(tree, parent);
        }
        catch (BlockException e)
        {
            return e.Kind == BlockErrorKind.NotFound ? "there are no hashes of an earlier point of the disk" : Short(e.Message);
        }
    }

    /// <summary>Removes a point that is safe at the other site. One that is not there is no trouble.</summary>
    /// <param name="point">The point.</param>
    /// <exception cref="BlockException">The host failed: the point is there as before, or will not be found again.</exception>
    public void Remove(Guid point)
    {
        if (Points.FirstOrDefault(each => each.Point.Id == point) is not { } found)
        {
            return;
        }

        BringTrees(); // what repairs them goes now
        try
        {
            string left = Path.Combine(FolderPath, PartPrefix + NameOf(found.Number));
            Directory.Move(found.Folder, left);
            lock (_lock)
            {
                _points = [.. _points.Where(each => each != found)];
            }

            HostFolder.Flush(FolderPath);
            Directory.Delete(left, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(found.Folder, "cannot be removed", e);
        }
    }

    /// <summary>Removes all points that wait, and the hashes: the next cut has all of each disk.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    public void Clear()
    {
        foreach (SpooledPoint point in Points.Reverse())
        {
            Remove(point.Point.Id);
        }

        try
        {
            foreach (string tree in Directory.GetFiles(_trees, "*" + TreeSuffix))
            {
                File.Delete(tree);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(_trees, "cannot be emptied", e);
        }
    }

    /// <summary>Opens the sealed delta of a disk to be sent.</summary>
    /// <param name="point">A point that waits.</param>
    /// <param name="disk">One of its disks.</param>
    /// <returns>Its bytes, from any place on.</returns>
    /// <exception cref="BlockException">It is gone, or the host failed.</exception>
    public static FileStream Open(SpooledPoint point, string disk)
    {
        string path = point.PathOf(disk);
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0, useAsync: false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(path, "cannot be read", e);
        }
    }

    /// <summary>Why the hashes do not stand for a disk at a point; null: they do.</summary>
    internal static string? ProblemOf(TreeFile tree, Guid parent) =>
        tree.Pending != Guid.Empty ? $"the hashes of point {tree.Pending} were not completed"
        : tree.Point != parent ? $"the hashes are those of point {tree.Point}, not of {parent}"
        : null;

    /// <summary>A message that fits into a record.</summary>
    internal static string Short(string message) => message.Length <= 300 ? message : message[..300];

    /// <summary>Begins a point: its number, and a folder that is no point yet.</summary>
    internal (int Number, string Part) Begin()
    {
        IReadOnlyList<SpooledPoint> points = Points;
        int number = points.Count == 0 ? 1 : points[^1].Number + 1;
        string part = Path.Combine(FolderPath, PartPrefix + NameOf(number));
        if (Directory.Exists(part))
        {
            Directory.Delete(part, recursive: true);
        }

        _ = Directory.CreateDirectory(part);
        return (number, part);
    }

    /// <summary>All deltas of a point are stable: it becomes one, and the hashes follow.</summary>
    internal SpooledPoint Complete(int number, string part, SealedPoint point)
    {
        RecordFile.Write(Path.Combine(part, PointFile), point, ReplicaJson.Default.SealedPoint);
        AtStep?.Invoke();
        SpooledPoint made = new(number, Path.Combine(FolderPath, NameOf(number)), point);
        Directory.Move(part, made.Folder);
        try
        {
            HostFolder.Flush(FolderPath);
        }
        catch (IOException)
        {
            Directory.Move(made.Folder, part); // it is none
            throw;
        }

        lock (_lock)
        {
            _points = [.. _points, made];
        }

        AtStep?.Invoke();
        try
        {
            BringTrees();
        }
        catch (BlockException)
        {
            // The point is there; the next cut or removal brings them, or tells why it cannot.
        }

        return made;
    }

    /// <summary>
    /// Hashes that did not follow the newest point do. Those that are damaged are removed: the next cut of the disk has all of it, and
    /// says so.
    /// </summary>
    /// <exception cref="BlockException">The host failed; this can be done again.</exception>
    internal void BringTrees()
    {
        using Lock.Scope bringing = _bringing.EnterScope(); // who cuts and who sends
        IReadOnlyList<SpooledPoint> points = Points;
        foreach (SealedDisk disk in points.Count == 0 ? [] : points[^1].Point.Disks)
        {
            try
            {
                using DeltaReader delta = DeltaReader.Open(points[^1].PathOf(disk.Name));
                if (!ReplicaTrees.IsAt(TreeOf(disk.Name), delta.Header.Point))
                {
                    TreeFile.Advance(TreeOf(disk.Name), delta, AtStep);
                    AtStep?.Invoke();
                }
            }
            catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
            {
                File.Delete(TreeOf(disk.Name));
            }
        }
    }

    private void Load()
    {
        foreach ((string folder, int number) in Directory.GetDirectories(FolderPath)
            .Select(each => (each, NumberOf(Path.GetFileName(each))))
            .Where(each => each.Item2 > 0)
            .OrderBy(each => each.Item2))
        {
            try
            {
                if (Lost is null)
                {
                    _points.Add(new SpooledPoint(number, folder, RecordFile.ReadPoint(Path.Combine(folder, PointFile))));
                    continue;
                }
            }
            catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
            {
                Lost = e.Message;
            }

            Directory.Delete(folder, recursive: true);
        }
    }

    private static string NameOf(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(Digits, '0');

    private static int NumberOf(string name) =>
        name.Length >= Digits && name.All(char.IsAsciiDigit) && int.TryParse(name, CultureInfo.InvariantCulture, out int number)
            && string.Equals(name, NameOf(number), StringComparison.Ordinal) ? number : 0;
}
