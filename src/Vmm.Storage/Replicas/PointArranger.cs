using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Makes an image of a delta, and checks every byte of that meanwhile. Extents are clusters: one that the delta has compressed is in the
/// image as it came, one of zeros takes no space. For one thread.
/// </summary>
/// <param name="intake">What has arrived.</param>
/// <param name="below">The newest point; null: there is none.</param>
/// <param name="treeOf">The file with the hashes of a disk at that point.</param>
internal sealed class PointArranger(ReplicaIntake intake, ArrangedPoint? below, Func<string, string> treeOf)
{
    private readonly byte[] _content = new byte[DeltaFormat.ExtentBytes], _stored = new byte[DeltaFormat.ExtentBytes];

    /// <summary>Makes the image of a disk, beside the delta.</summary>
    /// <returns>Its file.</returns>
    /// <exception cref="BlockException">The delta is damaged, not what was offered, or does not stand on the newest point; or the host
    /// failed.</exception>
    internal string Run(SealedDisk disk, ToolProgress progress)
    {
        using DeltaReader delta = DeltaReader.Open(intake.PathOf(disk.Name));
        SealedDisk? lower = delta.Header.IsFull ? null : below?.Point.Find(disk.Name);
        if (ProblemOf(delta, disk, lower) is { } problem)
        {
            throw ReplicaError.Damaged(delta.Path, problem);
        }

        string path = Path.Combine(intake.Folder, disk.Name + ReplicaFiles.PartSuffix);
        using (new FileStream(path, FileMode.Create, FileAccess.ReadWrite))
        {
        }

        using TreeFile? tree = lower is null ? null : TreeFile.Open(treeOf(disk.Name));
        using RawImageFile file = ImageFiles.Open(path, writable: true);
        Qcow2Builder builder = new(file, OptionsOf(disk, lower));
        TreeUpdate update = new(tree, disk.Bytes, writes: false);
        DeltaCursor cursor = delta.Begin();
        while (cursor.MoveNext())
        {
            DeltaEntry entry = cursor.Current;
            Add(builder, delta, entry, lower is not null);
            update.Set(entry.Extent, entry.Leaf.Span);
            progress.Advance(entry.Stored);
        }

        if (!update.Finish().AsSpan().SequenceEqual(delta.Seal.Root))
        {
            throw ReplicaError.Damaged(delta.Path, "the disk that it and those below make is not the one that was sealed");
        }

        _ = builder.Finish(ToolProgress.None);
        return path;
    }

    private void Add(Qcow2Builder builder, DeltaReader delta, in DeltaEntry entry, bool hasBelow)
    {
        ulong at = entry.Extent * DeltaFormat.ExtentBytes;
        delta.Read(entry, _content);
        if (entry.Stored == DeltaFormat.ExtentBytes)
        {
            builder.AddData(at, _content);
        }
        else if (entry.Stored > 0)
        {
            Span<byte> stored = _stored.AsSpan(0, (int)entry.Stored);
            delta.ReadAt(stored, entry.Offset);
            builder.AddCompressed(at, stored);
        }
        else if (hasBelow)
        {
            builder.AddZeros(at);
        }
    }

    private Qcow2CreateOptions OptionsOf(SealedDisk disk, SealedDisk? lower) => new()
    {
        DiskSize = disk.Bytes,
        Compression = Qcow2Compression.Zstd,
        BackingFile = lower is null ? null : ReplicaFiles.ImageOf(below!.Number, disk.Name),
        BackingFormat = lower is null ? null : "qcow2",
    };

    private string? ProblemOf(DeltaReader delta, SealedDisk disk, SealedDisk? lower)
    {
        DeltaHeader header = delta.Header;
        return header.Owner != intake.Point.Owner ? "it is of another VM"
            : header.Point != intake.Point.Id ? "it is of another point"
            : !string.Equals(header.Disk, disk.Name, StringComparison.Ordinal) ? $"it is of disk {header.Disk}, not of {disk.Name}"
            : header.DiskBytes != disk.Bytes || !IsHash(delta.Seal.Hash, disk.Seal) || !IsHash(delta.Seal.Root, disk.Root)
                ? "it is not the file that was offered"
            : header.IsFull != (disk.Why is not null) ? "it was offered as one that has all of its disk, or as one that has not"
            : header.IsFull ? null
            : below is null || header.Parent != below.Point.Id ? $"it stands on point {header.Parent}, which is not the newest here"
            : lower is null ? "the newest point here does not have its disk"
            : !IsHash(header.ParentRoot, lower.Root) ? "it stands on a disk of another content"
            : header.DiskBytes < lower.Bytes ? $"its disk has {header.DiskBytes} bytes, and had {lower.Bytes}"
            : null;
    }

    private static bool IsHash(byte[] hash, string text) =>
        string.Equals(Convert.ToHexString(hash), text, StringComparison.OrdinalIgnoreCase);
}
