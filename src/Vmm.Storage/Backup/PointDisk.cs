using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>
/// A disk as it was at a point: the deltas from that point down to a full one, seen as one. Goes through the extents that are not zeros in
/// the order of the disk; memory does not grow with it. For one thread.
/// </summary>
internal sealed class PointDisk : IDisposable
{
    /// <summary>Most deltas of a chain: each has a file and a buffer while the chain is read.</summary>
    internal const int MostDeltas = 200;

    private readonly List<DeltaReader> _deltas = []; // the newest first
    private readonly List<DeltaCursor> _cursors = [];
    private int _at;

    private PointDisk()
    {
    }

    /// <summary>Bytes of the disk.</summary>
    internal ulong DiskBytes => _deltas[0].Header.DiskBytes;

    /// <summary>The root of its tree.</summary>
    internal byte[] Root => _deltas[0].Seal.Root;

    /// <summary>The newest of its files.</summary>
    internal string Path => _deltas[0].Path;

    /// <summary>How many deltas it is in.</summary>
    internal int Deltas => _deltas.Count;

    /// <summary>The extent; after <see cref="MoveNext"/> said so.</summary>
    internal DeltaEntry Current => _cursors[_at].Current;

    /// <summary>Opens a disk of a point.</summary>
    /// <exception cref="BlockException">The point has no such disk, or a file of its chain is missing, damaged, or does not belong to it.
    /// </exception>
    internal static PointDisk Open(BackupFolder folder, StoredPoint point, string disk)
    {
        PointDisk made = new();
        try
        {
            StoredPoint? next = point;
            while (next is not null)
            {
                DeltaReader delta = made.Add(next, disk, folder);
                next = delta.Header.IsFull ? null : folder.Find(delta.Header.Parent) ?? throw new BlockException(
                    BlockErrorKind.NotFound, $"point {next.Number} stands on the point {delta.Header.Parent}, which is not in "
                        + $"{folder.FolderPath} or cannot be read")
                { Path = delta.Path };
            }

            foreach (DeltaReader delta in made._deltas)
            {
                DeltaCursor cursor = delta.Begin();
                _ = cursor.MoveNext();
                made._cursors.Add(cursor);
            }

            return made;
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>Goes to the next extent that is not zeros, and is not before a given one.</summary>
    /// <param name="least">The first extent to look at; no less than in the call before.</param>
    /// <exception cref="BlockException">A file is damaged, or the host failed.</exception>
    internal bool MoveNext(ulong least)
    {
        while (true)
        {
            int first = -1;
            for (int i = 0; i < _cursors.Count; i++)
            {
                DeltaCursor cursor = _cursors[i];
                while (cursor.HasCurrent && cursor.Current.Extent < least)
                {
                    _ = cursor.MoveNext();
                }

                // The newest one that has an extent is first in the list.
                if (cursor.HasCurrent && (first < 0 || cursor.Current.Extent < _cursors[first].Current.Extent))
                {
                    first = i;
                }
            }

            if (first < 0)
            {
                return false;
            }

            if (_cursors[first].Current.Stored > 0)
            {
                _at = first;
                return true;
            }

            least = _cursors[first].Current.Extent + 1;
        }
    }

    /// <summary>Reads the extent and checks it.</summary>
    /// <exception cref="BlockException">It is damaged, or the host failed.</exception>
    internal void Read(Span<byte> content) => _deltas[_at].Read(Current, content);

    /// <summary>Reads and checks all of it, once: at the end its tree has to be the one that was sealed.</summary>
    /// <param name="progress">What to tell.</param>
    /// <param name="use">Gets the number and the bytes of each extent that is not zeros.</param>
    /// <exception cref="BlockException">A file is damaged, or the host failed.</exception>
    internal void Walk(ToolProgress progress, Action<ulong, byte[]> use)
    {
        byte[] content = new byte[DeltaFormat.ExtentBytes];
        using DiskTree tree = new(DiskBytes);
        ulong next = 0;
        progress.Begin(DeltaFormat.ExtentsOf(DiskBytes));
        while (MoveNext(next))
        {
            ulong extent = Current.Extent;
            Read(content);
            use(extent, content);
            tree.Add(extent, Current.Leaf.Span);
            progress.Advance(extent + 1 - next);
            next = extent + 1;
        }

        if (!tree.Finish().AsSpan().SequenceEqual(Root))
        {
            throw DeltaFormat.Damaged(Path, "the disk that it and those below make is not the one that was sealed");
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _deltas.ForEach(delta => delta.Dispose());

    private DeltaReader Add(StoredPoint point, string name, BackupFolder folder)
    {
        BackupDisk disk = point.Point!.Disks.FirstOrDefault(each => string.Equals(each.Name, name, StringComparison.Ordinal))
            ?? throw new BlockException(
                BlockErrorKind.NotFound,
                $"point {point.Number} of {folder.FolderPath} has no disk {name}; it has "
                    + string.Join(", ", point.Point.Disks.Select(each => each.Name)))
            { Path = point.Folder };
        DeltaReader delta = DeltaReader.Open(System.IO.Path.Combine(point.Folder, disk.File));
        _deltas.Add(delta);
        DeltaHeader header = delta.Header;
        DeltaReader? child = _deltas.Count > 1 ? _deltas[^2] : null;
        string? problem = header.Owner != point.Point.Owner ? "it is of another VM"
            : header.Point != point.Point.Id ? "it is of another point"
            : !string.Equals(header.Disk, name, StringComparison.Ordinal) ? $"it is of disk {header.Disk}, not of {name}"
            : !string.Equals(Convert.ToHexString(delta.Seal.Hash), disk.Seal, StringComparison.OrdinalIgnoreCase)
                || header.DiskBytes != disk.Size ? $"it is not the file that {BackupFolder.PointFile} tells of"
            : child is null ? null
            : header.Owner != child.Header.Owner ? $"{child.Path} stands on it and is of another VM"
            : !delta.Seal.Root.AsSpan().SequenceEqual(child.Header.ParentRoot) ? $"{child.Path} stands on a disk of another content"
            : header.DiskBytes > child.Header.DiskBytes ? $"it is of a larger disk than {child.Path}, which stands on it"
            : _deltas.Count > MostDeltas ? $"more than {MostDeltas} deltas stand on each other" // also when they do so in a circle
            : null;
        return problem is null ? delta : throw DeltaFormat.Damaged(delta.Path, problem);
    }
}
