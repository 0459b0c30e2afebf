using Vmm.Interop;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Makes a point of disks that are there already: an image without content over each, and its hashes. So a site that was the primary takes
/// only what differs from what it has. For one thread.
/// </summary>
internal static class PointAdopter
{
    private const int Number = 1;

    /// <summary>Makes the point of a replica that has none.</summary>
    /// <exception cref="BlockException">A disk cannot be read or is in use, or the host failed: there is no point.</exception>
    internal static void Run(
        ReplicaFolder replica,
        SealedPoint point,
        IReadOnlyList<AdoptedDisk> disks,
        ToolProgress progress,
        Func<string, FileDescriptorHandle>? open)
    {
        SealedPoint made = point with { Disks = [.. disks.Select(disk => Store(replica, point, disk, progress, open))] };
        if (RecordFile.ProblemOf(made) is { } problem)
        {
            throw ReplicaError.Damaged(replica.FolderPath, $"point {point.Id} is refused: {problem}");
        }

        replica.Add(new ArrangedPoint(Number, made));
    }

    private static SealedDisk Store(
        ReplicaFolder replica,
        SealedPoint point,
        AdoptedDisk disk,
        ToolProgress progress,
        Func<string, FileDescriptorHandle>? open)
    {
        string backing = Path.GetFullPath(disk.Path);
        using ImageChain chain = ImageChain.Open(backing, disk.Format, open);
        ulong size = (chain.Size + 511) & ~511ul;
        if (!DeltaFormat.IsName(disk.Name) || size == 0 || size > DeltaFormat.MostDiskBytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {disk.Path} cannot be taken as {disk.Name}: {size} bytes, of at most 64 TiB")
            { Path = disk.Path };
        }

        string root;
        using (TreeBuilder builder = new(Path.Combine(replica.FolderPath, ReplicaFiles.TreeOf(disk.Name)), point.Id, size))
        {
            TreeScan.Run(chain, (extent, leaf) => builder.Set(extent, leaf), progress);
            root = builder.Complete();
        }

        using NewImageFile image = NewImageFile.Create(
            Path.Combine(replica.FolderPath, ReplicaFiles.ImageOf(Number, disk.Name)), replace: true);
        Qcow2Builder over = new(image.File, new Qcow2CreateOptions
        {
            DiskSize = size,
            Compression = Qcow2Compression.Zstd,
            BackingFile = backing,
            BackingFormat = disk.Format,
        });
        _ = over.Finish(ToolProgress.None);
        image.Complete();
        string noSeal = new('0', 2 * DeltaFormat.HashBytes); // no delta came
        return new SealedDisk(disk.Name, size, DeltaFormat.HeaderBytes + DeltaFormat.SealBytes, noSeal, root, "it was here");
    }
}
