using Vmm.Interop;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// The recovery site's side of a replica: points, each with an image of every disk that stands on the image of the point before. A point
/// is there when its record is, which is written last. One program has the folder; its methods may be called by several threads.
/// </summary>
public sealed class ReplicaFolder : IDisposable
{
    /// <summary>Most points: each is an image of the chain, and a VM that stands on the newest one adds some.</summary>
    public const int MostPoints = 190;

    private readonly Lock _state = new(), _arranging = new();
    private readonly ReplicaTrees _trees;
    private readonly FileStream _held;
    private List<ArrangedPoint> _points = [];
    private ReplicaIntake? _intake;
    private bool _isArranging;

    private ReplicaFolder(string path, FileStream held, Guid owner)
    {
        (FolderPath, _held, Owner) = (path, held, owner);
        _trees = new ReplicaTrees(path);
        Merger = new PointMerger(this);
    }

    /// <summary>The folder.</summary>
    public string FolderPath { get; }

    /// <summary>The VM's id.</summary>
    public Guid Owner { get; }

    /// <summary>The points, the oldest first.</summary>
    public IReadOnlyList<ArrangedPoint> Points
    {
        get
        {
            lock (_state)
            {
                return _points;
            }
        }
    }

    /// <summary>The newest point; null: there is none yet.</summary>
    public ArrangedPoint? Newest => Points is { Count: > 0 } points ? points[^1] : null;

    /// <summary>The point that comes; null: none does.</summary>
    public ReplicaIntake? Intake
    {
        get
        {
            lock (_state)
            {
                return _intake;
            }
        }
    }

    /// <summary>Tests hear of each step that a death may come behind.</summary>
    internal Action? AtStep { get; set; }

    /// <summary>Merges points.</summary>
    internal PointMerger Merger { get; }

    /// <summary>Makes a replica without points.</summary>
    /// <param name="path">The folder; it is made.</param>
    /// <param name="owner">The VM's id.</param>
    /// <exception cref="BlockException">There is one already, or the host failed.</exception>
    public static ReplicaFolder Create(string path, Guid owner)
    {
        string folder = Path.GetFullPath(path), record = Path.Combine(folder, ReplicaFiles.Replica);
        if (File.Exists(record))
        {
            throw new BlockException(BlockErrorKind.InUse, $"folder {path} has a replica already; delete that one first") { Path = path };
        }

        try
        {
            _ = Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be made", e);
        }

        RecordFile.Write(record, new ReplicaRecord { Format = 1, Owner = owner }, ReplicaJson.Default.ReplicaRecord);
        return Open(folder);
    }

    /// <summary>Opens a replica. What a death left half is removed; a point that was coming comes on.</summary>
    /// <param name="path">The folder.</param>
    /// <exception cref="BlockException">There is none, another program has it, a record is damaged, or the host failed.</exception>
    public static ReplicaFolder Open(string path)
    {
        string folder = Path.GetFullPath(path);
        ReplicaRecord record = RecordFile.Read(Path.Combine(folder, ReplicaFiles.Replica), ReplicaJson.Default.ReplicaRecord);
        if (record.Format != 1 || record.Owner == Guid.Empty)
        {
            throw ReplicaError.Damaged(
                Path.Combine(folder, ReplicaFiles.Replica), $"format {record.Format} of VM {record.Owner}; this program reads format 1");
        }

        ReplicaFolder made = new(folder, Hold(folder), record.Owner);
        try
        {
            made.Merger.Load();
            made.Load();
            return made;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            made.Dispose();
            throw ReplicaError.Failed(folder, "cannot be opened", e);
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>The point with an id; null without one.</summary>
    public ArrangedPoint? Find(Guid id) => Points.FirstOrDefault(point => point.Point.Id == id);

    /// <summary>
    /// Begins to take a point, or goes on with it when it is the one that was coming; another one that was coming is dropped.
    /// </summary>
    /// <param name="point">What a peer offers; it may be anything.</param>
    /// <returns>What takes its bytes; null: the point is here already.</returns>
    /// <exception cref="BlockException">It cannot be a point, is of another VM, does not stand on the newest point, there are too many
    /// points or too little space, or the host failed.</exception>
    public ReplicaIntake? BeginIntake(SealedPoint point)
    {
        lock (_state)
        {
            string? problem = RecordFile.ProblemOf(point) is { } wrong ? wrong
                : point.Owner != Owner ? $"it is of VM {point.Owner}"
                : null;
            if (problem is null && _points.Exists(each => each.Point.Id == point.Id))
            {
                return null;
            }

            problem ??= ProblemHere(point);
            if (problem is not null)
            {
                throw ReplicaError.Damaged(FolderPath, $"point {point.Id} is refused: {problem}");
            }

            if (_intake is { } coming && IsSame(coming.Point, point))
            {
                return coming;
            }

            if (_isArranging)
            {
                throw new BlockException(
                    BlockErrorKind.InUse, $"replica {FolderPath}: point {_intake?.Point.Id} is being arranged; wait for its end")
                { Path = FolderPath };
            }

            return _intake = BeginNew(point);
        }
    }

    /// <summary>Reads hashes of the newest point.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="from">The first extent.</param>
    /// <param name="leaves">Gets 32 bytes for each extent.</param>
    /// <returns>How many there are: fewer than asked for at the end of the disk.</returns>
    /// <exception cref="BlockException">There is no such disk, or the host failed.</exception>
    public int LeavesOf(string disk, ulong from, Span<byte> leaves)
    {
        _ = Newest?.Point.Find(disk)
            ?? throw new BlockException(BlockErrorKind.NotFound, $"replica {FolderPath} has no disk of that name at its newest point");
        _trees.Ensure(Newest, ToolProgress.None);
        return _trees.Read(disk, from, leaves);
    }

    /// <summary>
    /// The image of a disk at a point: qcow2, on those of the points before. It may only be read, or stood on; who does so is told to
    /// <see cref="Merge"/>.
    /// </summary>
    /// <exception cref="BlockException">The point does not have the disk.</exception>
    public string ImageOf(ArrangedPoint point, string disk) => point.Point.Find(disk) is null
        ? throw new BlockException(BlockErrorKind.NotFound, $"point {point.Number} of {FolderPath} has no disk of that name")
        : Path.Combine(FolderPath, ReplicaFiles.ImageOf(point.Number, disk));

    /// <summary>Bytes that the files of a point take: those that no other point's files have.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    public ulong BytesOf(ArrangedPoint point)
    {
        try
        {
            return point.Point.Disks.Aggregate(0ul, (sum, disk) => sum + ImageFiles.AllocatedBytes(ImageOf(point, disk.Name)));
        }
        catch (KernelException e)
        {
            throw new BlockException(BlockErrorKind.Io, $"replica {FolderPath}: files of point {point.Number}: {e.Message}", e)
            { Path = FolderPath };
        }
    }

    /// <summary>
    /// Keeps merges away while images are opened or put to use: the files of a chain keep their names. Waits for a merge of two points
    /// that goes on.
    /// </summary>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <returns>Ends it.</returns>
    public Task<IDisposable> HoldAsync(CancellationToken cancellation) => Merger.HoldAsync(cancellation);

    /// <summary>
    /// Removes points: the files of each become part of those of the next one, whose content does not change. One that is in use, that
    /// the next one in use would be written for, or the newest one, stays; so do the oldest one's files while any point is in use. A death
    /// meanwhile is made good by the next call.
    /// </summary>
    /// <param name="drop">The points to be removed.</param>
    /// <param name="inUse">The points that VMs stand on.</param>
    /// <param name="progress">What to tell.</param>
    /// <returns>How many points are no more.</returns>
    /// <exception cref="BlockException">The host failed; what is left is sound, and this can be done again.</exception>
    /// <exception cref="OperationCanceledException">The caller gave up; the same.</exception>
    public int Merge(IReadOnlyCollection<Guid> drop, IReadOnlyCollection<Guid> inUse, ToolProgress? progress = null) =>
        Merger.Run(drop, inUse, progress ?? ToolProgress.None);

    /// <summary>Reads all of a point's disks, and computes their roots anew.</summary>
    /// <param name="point">The point.</param>
    /// <param name="progress">What to tell; a stage for each disk.</param>
    /// <exception cref="BlockException">A disk is not what it was, or the host failed.</exception>
    public void Verify(ArrangedPoint point, ToolProgress? progress = null)
    {
        foreach (SealedDisk disk in point.Point.Disks)
        {
            using ImageChain chain = ImageChain.Open(ImageOf(point, disk.Name), "qcow2");
            string root = TreeScan.RootOf(chain, progress ?? ToolProgress.None);
            if (chain.Size != disk.Bytes || !string.Equals(root, disk.Root, StringComparison.OrdinalIgnoreCase))
            {
                throw ReplicaError.Damaged(
                    chain.Layers[0].Path, $"disk {disk.Name} at point {point.Number} has the root {root}, and was sealed with {disk.Root}");
            }
        }
    }

    /// <summary>Removes the replica with all its points. No VM stands on it.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    public void Delete()
    {
        lock (_arranging)
        {
            try
            {
                File.Delete(Path.Combine(FolderPath, ReplicaFiles.Replica)); // without it there is none
                Directory.Delete(FolderPath, recursive: true);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw ReplicaError.Failed(FolderPath, "cannot be removed", e);
            }

            lock (_state)
            {
                (_points, _intake) = ([], null);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _held.Dispose();

    /// <summary>A point is none any more.</summary>
    internal void Forget(int number)
    {
        lock (_state)
        {
            _points = [.. _points.Where(point => point.Number != number)];
        }
    }

    /// <summary>Makes a point of what has arrived.</summary>
    internal ArrangedPoint Arrange(ReplicaIntake intake, ToolProgress progress)
    {
        lock (_arranging)
        {
            lock (_state)
            {
                if (!ReferenceEquals(_intake, intake) || !intake.IsComplete)
                {
                    throw ReplicaError.Damaged(intake.Folder, $"point {intake.Point.Id} was dropped, or not all of it has arrived");
                }

                _isArranging = true;
            }

            try
            {
                _trees.Ensure(Newest, progress);
                progress.Begin(intake.Point.Stored);
                PointArranger arranger = new(intake, Newest, _trees.PathOf);
                (string Path, string Name)[] images = [.. intake.Point.Disks.Select(disk => (arranger.Run(disk, progress), disk.Name))];
                return Commit(intake, images);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw ReplicaError.Failed(intake.Folder, "cannot become a point", e);
            }
            finally
            {
                lock (_state)
                {
                    _isArranging = false;
                }
            }
        }
    }

    /// <summary>Removes what has arrived of a point.</summary>
    internal void Drop(ReplicaIntake intake)
    {
        lock (_arranging)
        {
            lock (_state)
            {
                _intake = ReferenceEquals(_intake, intake) ? null : _intake;
            }

            RemoveFolder(intake.Folder);
        }
    }

    private static FileStream Hold(string folder)
    {
        try
        {
            return new FileStream(Path.Combine(folder, ReplicaFiles.Lock), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e) when ((e.HResult & 0xffff) == 11) // EWOULDBLOCK of flock(2)
        {
            throw new BlockException(BlockErrorKind.InUse, $"replica {folder} is in use by another program", e) { Path = folder };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be opened", e);
        }
    }

    private static bool IsSame(SealedPoint one, SealedPoint other) =>
        one.Id == other.Id && one.Parent == other.Parent && one.Disks.SequenceEqual(other.Disks);

    private static void RemoveFolder(string folder)
    {
        try
        {
            if (Directory.Exists(folder))
            {
                Directory.Delete(folder, recursive: true);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be removed", e);
        }
    }

    private void Load()
    {
        foreach (string file in Directory.GetFiles(FolderPath))
        {
            int number = ReplicaFiles.NumberOfRecord(Path.GetFileName(file));
            if (number > 0 && !Merger.IsGone(number))
            {
                _points.Add(new ArrangedPoint(number, RecordFile.ReadPoint(file)));
            }
        }

        _points.Sort((one, other) => one.Number.CompareTo(other.Number));
        RemoveLeft();
        foreach (string folder in Directory.GetDirectories(FolderPath, ReplicaFiles.IntakePrefix + "*"))
        {
            if (Newest is { } newest && string.Equals(Path.GetFileName(folder), ReplicaFiles.IntakeOf(newest.Point.Id), StringComparison.Ordinal))
            {
                _trees.Follow(newest);
                RemoveFolder(folder);
            }
            else if (_intake is not null || (_intake = GoOn(folder)) is null)
            {
                RemoveFolder(folder);
            }
        }
    }

    // Files without a name of their own yet, and images of a point that has no record.
    private void RemoveLeft()
    {
        foreach (string file in Directory.GetFiles(FolderPath))
        {
            string name = Path.GetFileName(file);
            int image = ReplicaFiles.NumberOfImage(name);
            if (name.EndsWith(ReplicaFiles.PartSuffix, StringComparison.Ordinal) || name.EndsWith(".new", StringComparison.Ordinal)
                || (image > 0 && !Merger.IsGone(image) && !_points.Exists(point => point.Number == image)))
            {
                File.Delete(file);
            }
        }
    }

    private ReplicaIntake? GoOn(string folder)
    {
        try
        {
            SealedPoint point = RecordFile.ReadPoint(Path.Combine(folder, ReplicaFiles.Offer));
            if (point.Owner != Owner || ProblemHere(point) is not null
                || !string.Equals(Path.GetFileName(folder), ReplicaFiles.IntakeOf(point.Id), StringComparison.Ordinal))
            {
                return null;
            }

            ulong[] arrived = [.. point.Disks.Select(disk =>
                new FileInfo(Path.Combine(folder, disk.Name + ReplicaSpool.DeltaSuffix)) is { Exists: true } file ? (ulong)file.Length : 0)];
            return arrived.Zip(point.Disks).All(each => each.First <= each.Second.Stored)
                ? new ReplicaIntake(this, folder, point, arrived) : null;
        }
        catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
        {
            return null;
        }
    }

    private string? ProblemHere(SealedPoint point)
    {
        ArrangedPoint? newest = _points.Count == 0 ? null : _points[^1];
        string? alone = point.Disks.FirstOrDefault(disk => disk.Why is null && newest?.Point.Find(disk.Name) is null)?.Name;
        return point.Parent != Guid.Empty && point.Parent != newest?.Point.Id
                ? $"it stands on point {point.Parent}, and the newest here is {newest?.Point.Id.ToString() ?? "none"}"
            : alone is not null ? $"its disk {alone} stands on a point that is not here"
            : _points.Count >= MostPoints ? $"there are {_points.Count} points, as many as may: old ones have to be merged first"
            : null;
    }

    private ReplicaIntake BeginNew(SealedPoint point)
    {
        if (_intake is { } other)
        {
            _intake = null;
            RemoveFolder(other.Folder);
        }

        string folder = Path.Combine(FolderPath, ReplicaFiles.IntakeOf(point.Id));
        try
        {
            RemoveFolder(folder);
            _ = Directory.CreateDirectory(folder);
            RecordFile.Write(Path.Combine(folder, ReplicaFiles.Offer), point, ReplicaJson.Default.SealedPoint);
            HostFolder.Flush(FolderPath);
            return new ReplicaIntake(this, folder, point, new ulong[point.Disks.Count]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be made", e);
        }
    }

    private ArrangedPoint Commit(ReplicaIntake intake, (string Path, string Name)[] images)
    {
        int number = Math.Max(Newest?.Number ?? 0, Merger.Highest) + 1;
        foreach ((string path, string name) in images)
        {
            AtStep?.Invoke();
            File.Move(path, Path.Combine(FolderPath, ReplicaFiles.ImageOf(number, name)), overwrite: true);
        }

        HostFolder.Flush(FolderPath);
        AtStep?.Invoke();
        RecordFile.Write(
            Path.Combine(FolderPath, ReplicaFiles.RecordOf(number)), intake.Point, ReplicaJson.Default.SealedPoint);
        ArrangedPoint made = new(number, intake.Point);
        lock (_state)
        {
            (_points, _intake) = ([.. _points, made], null);
        }

        AtStep?.Invoke();
        _trees.Ensure(made, ToolProgress.None, AtStep);
        RemoveFolder(intake.Folder);
        AtStep?.Invoke();
        return made;
    }
}
