using Vmm.Interop;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Merges the files of points that go into those of the next one. What is to be merged is written down first: from then on the point is
/// none, and the merge is done, or done again. The oldest image gets in place what the one above it has, and then that one's name. An
/// image between is written anew together with the one above it, and takes its name. So whatever dies, each file has a name that the one
/// above it knows, and the content of every point that stays is the same.
/// </summary>
/// <param name="replica">The replica.</param>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one.
#pragma warning disable CA1001
internal sealed class PointMerger(ReplicaFolder replica)
#pragma warning restore CA1001
{
    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly Lock _lock = new();
    private List<PointMerge> _merges = [];
    private int _holders;

    /// <summary>The highest number of a point that goes; 0: none does.</summary>
    internal int Highest
    {
        get
        {
            lock (_lock)
            {
                return _merges.Count == 0 ? 0 : _merges.Max(each => each.From);
            }
        }
    }

    private string RecordPath => Path.Combine(replica.FolderPath, ReplicaFiles.Merges);

    /// <summary>True for a point that is none any more, whose files may be there.</summary>
    internal bool IsGone(int number)
    {
        lock (_lock)
        {
            return _merges.Exists(each => each.From == number);
        }
    }

    /// <summary>Reads which merges go on.</summary>
    /// <exception cref="BlockException">The record is damaged, or the host failed.</exception>
    internal void Load()
    {
        if (!File.Exists(RecordPath))
        {
            return;
        }

        MergeRecord record = RecordFile.Read(RecordPath, ReplicaJson.Default.MergeRecord);
        if (record.Merges.Count > ReplicaFolder.MostPoints
            || record.Merges.Any(each => each is null || each.From < 1 || each.Into <= each.From)
            || record.Merges.SelectMany(each => new[] { each.From, each.Into }).Distinct().Count() != 2 * record.Merges.Count)
        {
            throw ReplicaError.Damaged(RecordPath, "its merges cannot be");
        }

        _merges = [.. record.Merges];
    }

    /// <summary>Refuses merges that no replica with these points has.</summary>
    /// <exception cref="BlockException">The next point of one that goes is another one than the record says.</exception>
    internal void Check(IReadOnlyList<ArrangedPoint> points)
    {
        if (_merges.Find(merge => points.FirstOrDefault(point => point.Number > merge.From)?.Number != merge.Into) is { } wrong)
        {
            throw ReplicaError.Damaged(RecordPath, $"point {wrong.From} is merged into {wrong.Into}, which is not the next one");
        }
    }

    /// <inheritdoc cref="ReplicaFolder.HoldAsync"/>
    internal async Task<IDisposable> HoldAsync(CancellationToken cancellation)
    {
        await _gate.WaitAsync(cancellation).ConfigureAwait(false);
        _ = Interlocked.Increment(ref _holders);
        _ = _gate.Release();
        return new Holder(this);
    }

    /// <inheritdoc cref="ReplicaFolder.Merge"/>
    internal int Run(IReadOnlyCollection<Guid> drop, IReadOnlyCollection<Guid> inUse, ToolProgress progress)
    {
        int gone = 0;
        HashSet<int> used = [.. replica.Points.Where(point => inUse.Contains(point.Point.Id)).Select(point => point.Number)];
        foreach (PointMerge merge in Snapshot())
        {
            _ = TryStep(merge, used, inUse.Count > 0, progress);
        }

        foreach (Guid id in drop)
        {
            IReadOnlyList<ArrangedPoint> points = replica.Points;
            int at = points.ToList().FindIndex(point => point.Point.Id == id);
            if (at < 0 || at == points.Count - 1)
            {
                continue;
            }

            PointMerge merge = new(points[at].Number, points[at + 1].Number);
            if (TryBegin(merge, used, inUse.Count > 0))
            {
                gone++;
                _ = TryStep(merge, used, inUse.Count > 0, progress);
            }
        }

        return gone;
    }

    private PointMerge[] Snapshot()
    {
        lock (_lock)
        {
            return [.. _merges];
        }
    }

    // Writes down that the point is none any more; false when its files, or those of the next one, may not be touched.
    private bool TryBegin(PointMerge merge, HashSet<int> used, bool isUsed)
    {
        if (!MayTouch(merge, used, isUsed)
            || Snapshot().Any(each => each.From == merge.Into || each.Into == merge.From || each.Into == merge.Into))
        {
            return false;
        }

        Store([.. Snapshot(), merge]);
        replica.Forget(merge.From);
        replica.AtStep?.Invoke();
        return true;
    }

    private bool TryStep(PointMerge merge, HashSet<int> used, bool isUsed, ToolProgress progress)
    {
        if (!MayTouch(merge, used, isUsed))
        {
            return false;
        }

        _gate.Wait();
        try
        {
            if (Volatile.Read(ref _holders) > 0)
            {
                return false;
            }

            foreach (string disk in DisksOf(merge.From))
            {
                MergeDisk(disk, merge, progress);
            }

            File.Delete(Path.Combine(replica.FolderPath, ReplicaFiles.RecordOf(merge.From)));
            HostFolder.Flush(replica.FolderPath);
            replica.AtStep?.Invoke();
            Store([.. Snapshot().Where(each => each != merge)]);
            replica.AtStep?.Invoke();
            return true;
        }
        catch (BlockException e) when (e.Kind == BlockErrorKind.InUse)
        {
            return false; // another program reads an image: the next call goes on
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(replica.FolderPath, $"point {merge.From} cannot be merged", e);
        }
        finally
        {
            _ = _gate.Release();
        }
    }

    // An image at the bottom is written in place, under the feet of all that stand on it.
    private bool MayTouch(PointMerge merge, HashSet<int> used, bool isUsed) =>
        !used.Contains(merge.From) && !used.Contains(merge.Into)
            && !(isUsed && DisksOf(merge.From).Any(disk => StandsOn(disk, merge) && IsOldest(disk, merge.From)));

    private string PathOf(string disk, int number) => Path.Combine(replica.FolderPath, ReplicaFiles.ImageOf(number, disk));

    private IEnumerable<string> DisksOf(int number) => Directory.GetFiles(replica.FolderPath)
        .Select(file => Path.GetFileName(file)!)
        .Where(file => ReplicaFiles.NumberOfImage(file) == number)
        .Select(ReplicaFiles.DiskOfImage)
        .ToArray();

    private bool StandsOn(string disk, PointMerge merge) =>
        string.Equals(BackingOf(disk, merge.Into), ReplicaFiles.ImageOf(merge.From, disk), StringComparison.Ordinal);

    // It stands on no other image of the replica; one that was adopted stands on a file elsewhere.
    private bool IsOldest(string disk, int number) =>
        BackingOf(disk, number) is not { } backing || backing.Contains('/', StringComparison.Ordinal);

    private string? BackingOf(string disk, int number)
    {
        string path = PathOf(disk, number);
        if (!File.Exists(path))
        {
            return null;
        }

        using RawImageFile file = ImageFiles.Open(path, writable: false);
        return ImageFiles.ReadHeader(file).BackingFile;
    }

    private void MergeDisk(string disk, PointMerge merge, ToolProgress progress)
    {
        string lower = PathOf(disk, merge.From), upper = PathOf(disk, merge.Into);
        if (!StandsOn(disk, merge))
        {
            File.Delete(lower); // the next one has no such disk, has all of it, or was written anew already
        }
        else if (IsOldest(disk, merge.From))
        {
            _ = ImageCommit.Run(upper, lower, deletes: false, progress);
            replica.AtStep?.Invoke();
            File.Move(lower, upper, overwrite: true);
        }
        else
        {
            string part = upper + ReplicaFiles.PartSuffix;
            ImageMerge.Run(lower, upper, part, progress);
            replica.AtStep?.Invoke();
            File.Move(part, upper, overwrite: true);
            HostFolder.Flush(replica.FolderPath);
            replica.AtStep?.Invoke();
            File.Delete(lower);
        }

        HostFolder.Flush(replica.FolderPath);
        replica.AtStep?.Invoke();
    }

    private void Store(List<PointMerge> merges)
    {
        RecordFile.Write(RecordPath, new MergeRecord(merges), ReplicaJson.Default.MergeRecord);
        lock (_lock)
        {
            _merges = merges;
        }
    }

    private sealed class Holder(PointMerger merger) : IDisposable
    {
        private PointMerger? _merger = merger;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _merger, null) is { } held)
            {
                _ = Interlocked.Decrement(ref held._holders);
            }
        }
    }
}
