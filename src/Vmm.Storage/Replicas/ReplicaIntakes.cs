using Vmm.Interop;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>Takes points that come, one at a time, and makes them points of the replica.</summary>
/// <param name="replica">The replica.</param>
/// <param name="trees">Its hashes.</param>
internal sealed class ReplicaIntakes(ReplicaFolder replica, ReplicaTrees trees)
{
    private readonly Lock _state = new(), _arranging = new();
    private ReplicaIntake? _current;
    private bool _isArranging;

    /// <summary>The point that comes; null: none does.</summary>
    internal ReplicaIntake? Current
    {
        get
        {
            lock (_state)
            {
                return _current;
            }
        }
    }

    /// <inheritdoc cref="ReplicaFolder.BeginIntake"/>
    internal ReplicaIntake? Begin(SealedPoint point)
    {
        lock (_state)
        {
            string? problem = RecordFile.ProblemOf(point) is { } wrong ? wrong
                : point.Owner != replica.Owner ? $"it is of VM {point.Owner}"
                : null;
            if (problem is null && replica.Find(point.Id) is not null)
            {
                return null;
            }

            problem ??= ProblemHere(point);
            if (problem is not null)
            {
                throw ReplicaError.Damaged(replica.FolderPath, $"point {point.Id} is refused: {problem}");
            }

            if (_current is { } coming && IsSame(coming.Point, point))
            {
                return coming;
            }

            if (_isArranging)
            {
                throw new BlockException(
                    BlockErrorKind.InUse,
                    $"replica {replica.FolderPath}: point {_current?.Point.Id} is being arranged; wait for its end")
                { Path = replica.FolderPath };
            }

            return _current = BeginNew(point);
        }
    }

    /// <summary>What was coming when the program ended comes on; what cannot is removed.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal void Load()
    {
        foreach (string folder in Directory.GetDirectories(replica.FolderPath, ReplicaFiles.IntakePrefix + "*"))
        {
            if (replica.Newest is { } newest
                && string.Equals(Path.GetFileName(folder), ReplicaFiles.IntakeOf(newest.Point.Id), StringComparison.Ordinal))
            {
                trees.Follow(newest);
                ReplicaFiles.RemoveFolder(folder);
            }
            else if (_current is not null || (_current = GoOn(folder)) is null)
            {
                ReplicaFiles.RemoveFolder(folder);
            }
        }
    }

    /// <summary>Makes a point of what has arrived.</summary>
    internal ArrangedPoint Arrange(ReplicaIntake intake, ToolProgress progress)
    {
        lock (_arranging)
        {
            lock (_state)
            {
                if (!ReferenceEquals(_current, intake) || !intake.IsComplete)
                {
                    throw ReplicaError.Damaged(intake.Folder, $"point {intake.Point.Id} was dropped, or not all of it has arrived");
                }

                _isArranging = true;
            }

            try
            {
                End(replica.Newest, progress);
                progress.Begin(intake.Point.Stored);
                PointArranger arranger = new(intake, replica.Newest, trees.PathOf);
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
    /// <exception cref="BlockException">The host failed.</exception>
    internal void Drop(ReplicaIntake intake)
    {
        lock (_arranging)
        {
            lock (_state)
            {
                if (!ReferenceEquals(_current, intake))
                {
                    return; // it is a point, or was dropped
                }

                _current = null;
                ReplicaFiles.RemoveFolder(intake.Folder);
            }
        }
    }

    private static bool IsSame(SealedPoint one, SealedPoint other) =>
        one.Id == other.Id && one.Parent == other.Parent && one.Disks.SequenceEqual(other.Disks);

    private string? ProblemHere(SealedPoint point)
    {
        ArrangedPoint? newest = replica.Newest;
        int points = replica.Points.Count;
        string? alone = point.Disks.FirstOrDefault(disk => disk.Why is null && newest?.Point.Find(disk.Name) is null)?.Name;
        return point.Parent != Guid.Empty && point.Parent != newest?.Point.Id
                ? $"it stands on point {point.Parent}, and the newest here is {newest?.Point.Id.ToString() ?? "none"}"
            : alone is not null ? $"its disk {alone} stands on a point that is not here"
            : points >= ReplicaFolder.MostPoints ? $"there are {points} points, as many as may: old ones have to be merged first"
            : null;
    }

    private ReplicaIntake BeginNew(SealedPoint point)
    {
        if (_current is { } other)
        {
            _current = null;
            ReplicaFiles.RemoveFolder(other.Folder);
        }

        string folder = Path.Combine(replica.FolderPath, ReplicaFiles.IntakeOf(point.Id));
        try
        {
            ReplicaFiles.RemoveFolder(folder);
            _ = Directory.CreateDirectory(folder);
            RecordFile.Write(Path.Combine(folder, ReplicaFiles.Offer), point, ReplicaJson.Default.SealedPoint);
            HostFolder.Flush(replica.FolderPath);
            return new ReplicaIntake(this, folder, point, new ulong[point.Disks.Count]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(folder, "cannot be made", e);
        }
    }

    private ReplicaIntake? GoOn(string folder)
    {
        try
        {
            SealedPoint point = RecordFile.ReadPoint(Path.Combine(folder, ReplicaFiles.Offer));
            if (point.Owner != replica.Owner || ProblemHere(point) is not null
                || !string.Equals(Path.GetFileName(folder), ReplicaFiles.IntakeOf(point.Id), StringComparison.Ordinal))
            {
                return null;
            }

            ulong[] arrived = [.. point.Disks
                .Select(disk => new FileInfo(Path.Combine(folder, disk.Name + ReplicaSpool.DeltaSuffix)))
                .Select(file => file.Exists ? (ulong)file.Length : 0)];
            return arrived.Zip(point.Disks).All(each => each.First <= each.Second.Stored)
                ? new ReplicaIntake(this, folder, point, arrived) : null;
        }
        catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
        {
            return null;
        }
    }

    private ArrangedPoint Commit(ReplicaIntake intake, (string Path, string Name)[] images)
    {
        int number = Math.Max(replica.Newest?.Number ?? 0, replica.Merger.Highest) + 1;
        foreach ((string path, string name) in images)
        {
            replica.AtStep?.Invoke();
            File.Move(path, Path.Combine(replica.FolderPath, ReplicaFiles.ImageOf(number, name)), overwrite: true);
        }

        HostFolder.Flush(replica.FolderPath);
        replica.AtStep?.Invoke();
        ArrangedPoint made = new(number, intake.Point);
        replica.Add(made);
        lock (_state)
        {
            _current = null;
        }

        replica.AtStep?.Invoke();
        try
        {
            End(made, ToolProgress.None);
        }
        catch (BlockException)
        {
            // The point is there; the next one, or the next opening, brings the hashes after it.
        }

        replica.AtStep?.Invoke();
        return made;
    }

    // The hashes follow the newest point; what it came as is not needed any more.
    private void End(ArrangedPoint? newest, ToolProgress progress)
    {
        trees.Ensure(newest, progress, replica.AtStep);
        if (newest is not null)
        {
            ReplicaFiles.RemoveFolder(Path.Combine(replica.FolderPath, ReplicaFiles.IntakeOf(newest.Point.Id)));
        }
    }
}
