using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>The hashes of a replica's disks at its newest point. They follow it.</summary>
/// <param name="folder">The replica's folder.</param>
internal sealed class ReplicaTrees(string folder)
{
    private readonly Lock _lock = new();

    /// <summary>The file of a disk.</summary>
    internal string PathOf(string disk) => Path.Combine(folder, ReplicaFiles.TreeOf(disk));

    /// <summary>They become those of the newest point, where they are not: by its deltas while those are there, else by reading its
    /// disks.</summary>
    /// <param name="newest">That point; null: there is none.</param>
    /// <param name="progress">What to tell.</param>
    /// <param name="atStep">Hears of each disk.</param>
    /// <exception cref="BlockException">A disk is not what it was, or the host failed.</exception>
    internal void Ensure(ArrangedPoint? newest, ToolProgress progress, Action? atStep = null)
    {
        lock (_lock)
        {
            foreach (SealedDisk disk in newest?.Point.Disks ?? [])
            {
                if (!TryFollow(newest!, disk.Name, atStep))
                {
                    string image = Path.Combine(folder, ReplicaFiles.ImageOf(newest!.Number, disk.Name));
                    using ImageChain chain = ImageChain.Open(image, "qcow2");
                    using TreeBuilder builder = new(PathOf(disk.Name), newest.Point.Id, disk.Bytes);
                    TreeScan.Run(chain, (extent, leaf) => builder.Set(extent, leaf), progress);
                    builder.Complete(disk.Root);
                }

                atStep?.Invoke();
            }
        }
    }

    /// <summary>The same by its deltas alone; where that cannot be, <see cref="Ensure"/> does so later.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal void Follow(ArrangedPoint newest)
    {
        lock (_lock)
        {
            foreach (SealedDisk disk in newest.Point.Disks)
            {
                _ = TryFollow(newest, disk.Name, null);
            }
        }
    }

    /// <summary>Reads leaves.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal int Read(string disk, ulong from, Span<byte> leaves)
    {
        lock (_lock)
        {
            using TreeFile tree = TreeFile.Open(PathOf(disk));
            return tree.ReadLeaves(from, leaves);
        }
    }

    /// <summary>True when a file has the hashes of a point.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static bool IsAt(string path, Guid point)
    {
        try
        {
            using TreeFile tree = TreeFile.Open(path);
            return tree.Point == point && tree.Pending == Guid.Empty;
        }
        catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
        {
            return false;
        }
    }

    private bool TryFollow(ArrangedPoint newest, string disk, Action? atStep)
    {
        string tree = PathOf(disk), delta = Path.Combine(
            folder, ReplicaFiles.IntakeOf(newest.Point.Id), disk + ReplicaSpool.DeltaSuffix);
        if (IsAt(tree, newest.Point.Id))
        {
            return true;
        }

        try
        {
            if (!File.Exists(delta))
            {
                return false;
            }

            using DeltaReader reader = DeltaReader.Open(delta);
            TreeFile.Advance(tree, reader, atStep);
            return true;
        }
        catch (BlockException e) when (e.Kind is BlockErrorKind.Damaged or BlockErrorKind.NotFound)
        {
            return false;
        }
    }
}
