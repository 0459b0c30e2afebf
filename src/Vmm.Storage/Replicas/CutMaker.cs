using Vmm.Interop;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Makes a point of disks that nothing writes: what differs from the point before becomes a sealed delta of each. An extent that was
/// written with what it had has the same hash, and is not stored. Blocking, for one thread.
/// </summary>
public static class CutMaker
{
    /// <summary>Makes the point. When this throws, the spool has the points that it had.</summary>
    /// <param name="disks">The disks; none is written meanwhile, which their locks see to.</param>
    /// <param name="wish">What the point is to be.</param>
    /// <param name="spool">Where it goes.</param>
    /// <param name="progress">What to tell.</param>
    /// <param name="open">Opens a file of a disk to read, or throws; null: any that this user may read.</param>
    /// <returns>The point. One in which nothing differs is a point as well.</returns>
    /// <exception cref="BlockException">A disk cannot be read or is in use, or the spool cannot be written or is full.</exception>
    /// <exception cref="OperationCanceledException">The caller gave up.</exception>
    public static SpooledPoint Run(
        IReadOnlyList<CutDisk> disks,
        CutWish wish,
        ReplicaSpool spool,
        ToolProgress? progress = null,
        Func<string, FileDescriptorHandle>? open = null)
    {
        progress ??= ToolProgress.None;
        List<ImageChain> chains = [];
        string part = spool.FolderPath;
        bool isMade = false;
        try
        {
            spool.BringTrees();
            (int number, part) = spool.Begin();

            // All are open, and so locked, before the first is read: they are of one instant.
            foreach (CutDisk disk in disks)
            {
                chains.Add(ImageChain.Open(disk.Path, disk.Format, open));
            }

            progress.Begin(chains.Zip(disks).Aggregate(0ul, (sum, each) => sum + ToRead(each.First, each.Second)));
            BackupPace pace = new(wish.BytesPerSecond, progress);
            SealedPoint point = PointOf(wish, [.. disks.Select((disk, i) => Store(disk, chains[i], spool, part, wish, pace))]);
            if (RecordFile.ProblemOf(point) is { } problem)
            {
                throw ReplicaError.Damaged(part, problem);
            }

            progress.Advance(0); // the last moment to give up
            spool.AtStep?.Invoke();
            SpooledPoint made = spool.Complete(number, part, point);
            isMade = true;
            return made;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(part, "cannot become a point", e);
        }
        finally
        {
            chains.ForEach(chain => chain.Dispose());
            if (!isMade && !string.Equals(part, spool.FolderPath, StringComparison.Ordinal) && Directory.Exists(part))
            {
                Directory.Delete(part, recursive: true);
            }
        }
    }

    private static SealedPoint PointOf(CutWish wish, IReadOnlyList<SealedDisk> disks) => new()
    {
        Id = wish.Point,
        Parent = wish.Parent,
        Owner = wish.Owner,
        Generation = wish.Generation,
        Time = wish.Time,
        Quiesced = wish.Quiesced,
        IsLast = wish.IsLast,
        Spec = wish.Spec,
        Variables = wish.Variables,
        Disks = disks,
    };

    private static ulong ToRead(ImageChain chain, CutDisk disk) => disk.Changed.IsAll ? chain.Size
        : disk.Changed.Ranges.Aggregate(0ul, (sum, range) => sum + (range.Count * DeltaFormat.ExtentBytes));

    private static SealedDisk Store(
        CutDisk disk, ImageChain chain, ReplicaSpool spool, string part, CutWish wish, BackupPace pace)
    {
        ulong size = (chain.Size + 511) & ~511ul;
        if (!DeltaFormat.IsName(disk.Name) || size == 0 || size > DeltaFormat.MostDiskBytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {disk.Path} cannot be replicated as {disk.Name}: {size} bytes, of at most 64 TiB")
            { Path = disk.Path };
        }

        (TreeFile? tree, string? why) = FindTree(disk.Name, size, spool, wish);
        using (tree)
        {
            DeltaHeader header = new()
            {
                Disk = disk.Name,
                DiskBytes = size,
                Owner = wish.Owner,
                Point = wish.Point,
                Parent = tree?.Point ?? Guid.Empty,
                ParentRoot = tree?.RootBytes ?? new byte[DeltaFormat.HashBytes],
            };
            using DeltaWriter writer = new(Path.Combine(part, disk.Name + ReplicaSpool.DeltaSuffix), header);
            TreeUpdate update = new(tree, size, writes: false);
            CutScan scan = new(chain, tree, writer, update, pace);
            foreach (ExtentRange range in RangesOf(disk, tree, size))
            {
                scan.Run(range);
            }

            byte[] root = update.Finish(), seal = writer.Finish(root);
            return new SealedDisk(disk.Name, size, writer.Bytes, Convert.ToHexStringLower(seal), Convert.ToHexStringLower(root), why);
        }
    }

    // The hashes of the point before, or why all of the disk has to be stored.
    private static (TreeFile? Tree, string? Why) FindTree(string disk, ulong size, ReplicaSpool spool, CutWish wish)
    {
        string? why = wish.WhyFull ?? (wish.Parent == Guid.Empty ? "it is the first point" : spool.WhyFull(disk, wish.Parent));
        if (why is not null)
        {
            return (null, ReplicaSpool.Short(why));
        }

        TreeFile tree = TreeFile.Open(spool.TreeOf(disk));
        if (tree.DiskBytes <= size)
        {
            return (tree, null);
        }

        tree.Dispose();
        return (null, $"the disk is smaller than at point {wish.Parent}");
    }

    // Where the disk has grown is part of what may differ.
    private static IReadOnlyList<ExtentRange> RangesOf(CutDisk disk, TreeFile? tree, ulong size)
    {
        ulong extents = DeltaFormat.ExtentsOf(size);
        if (tree is null || disk.Changed.IsAll)
        {
            return [new ExtentRange(0, extents)];
        }

        ulong known = tree.Extents;
        return tree.DiskBytes == size ? disk.Changed.Ranges
            : disk.Changed.With(ExtentSet.Of([new ExtentRange(known - 1, extents - known + 1)])).Ranges;
    }
}
