using Vmm.Interop;
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

    private readonly Lock _state = new();
    private readonly ReplicaTrees _trees;
    private readonly ReplicaIntakes _intakes;
    private readonly FileStream _held;
    private List<ArrangedPoint> _points = [];

    private ReplicaFolder(string path, FileStream held, Guid owner)
    {
        (FolderPath, _held, Owner) = (path, held, owner);
        _trees = new ReplicaTrees(path);
        _intakes = new ReplicaIntakes(this, _trees);
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
    public ReplicaIntake? Intake => _intakes.Current;

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

    /// <summary>Makes a replica whose oldest point are disks that are here already.</summary>
    /// <param name="path">The folder; it is made.</param>
    /// <param name="point">What the point is to be; its disks are put in here.</param>
    /// <param name="disks">The disks. Their files are what the images stand on; nobody writes them from now on.</param>
    /// <param name="progress">What to tell.</param>
    /// <param name="open">Opens a file of a disk to read, or throws; null: any that this user may read.</param>
    /// <exception cref="BlockException">There is a replica already, a disk cannot be read or is in use, or the host failed: a folder that
    /// was made has no points, and can be deleted.</exception>
    public static ReplicaFolder Adopt(
        string path,
        SealedPoint point,
        IReadOnlyList<AdoptedDisk> disks,
        ToolProgress? progress = null,
        Func<string, FileDescriptorHandle>? open = null)
    {
        ReplicaFolder made = Create(path, point.Owner);
        try
        {
            PointAdopter.Run(made, point, disks, progress ?? ToolProgress.None, open);
            return made;
        }
        catch
        {
            made.Dispose();
            throw;
        }
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
    public ReplicaIntake? BeginIntake(SealedPoint point) => _intakes.Begin(point);

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

    /// <summary>Removes the replica with all its points. No VM stands on it, and nothing else is done with it meanwhile.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    public void Delete()
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
            _points = [];
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _held.Dispose();

    /// <summary>All images of a point have their names: with its record it is the newest one.</summary>
    /// <exception cref="BlockException">The host failed: it is no point.</exception>
    internal void Add(ArrangedPoint point)
    {
        string path = Path.Combine(FolderPath, ReplicaFiles.RecordOf(point.Number));
        try
        {
            RecordFile.Write(path, point.Point, ReplicaJson.Default.SealedPoint);
        }
        catch (BlockException)
        {
            File.Delete(path); // it may have its name, and not be stable
            throw;
        }

        lock (_state)
        {
            _points = [.. _points, point];
        }
    }

    /// <summary>A point is none any more.</summary>
    internal void Forget(int number)
    {
        lock (_state)
        {
            _points = [.. _points.Where(point => point.Number != number)];
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
        Merger.Check(_points);
        RemoveLeft();
        _intakes.Load();
    }

    // Files without a name of their own yet, and images of a point that did not become one. Others may be stood on.
    private void RemoveLeft()
    {
        foreach (string file in Directory.GetFiles(FolderPath))
        {
            string name = Path.GetFileName(file);
            int image = ReplicaFiles.NumberOfImage(name);
            if (name.EndsWith(ReplicaFiles.PartSuffix, StringComparison.Ordinal) || name.EndsWith(".new", StringComparison.Ordinal)
                || image > Math.Max(Newest?.Number ?? 0, Merger.Highest))
            {
                File.Delete(file);
            }
        }
    }
}
