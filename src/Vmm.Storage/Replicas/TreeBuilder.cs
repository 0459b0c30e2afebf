using Vmm.Interop;
using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Makes a tree file of leaves that come in the order of the disk, such as those that the other site tells. The file has its name when it
/// is complete. For one thread.
/// </summary>
public sealed class TreeBuilder : IDisposable
{
    private readonly string _path, _part;
    private readonly TreeFile _tree;
    private readonly TreeUpdate _update;
    private ulong _next;

    /// <summary>Begins.</summary>
    /// <param name="path">The file; one that is there is replaced in the end.</param>
    /// <param name="point">The point whose hashes come.</param>
    /// <param name="diskBytes">Bytes of the disk.</param>
    /// <exception cref="BlockException">The size cannot be, or the host failed.</exception>
    public TreeBuilder(string path, Guid point, ulong diskBytes)
    {
        if (point == Guid.Empty || diskBytes == 0 || diskBytes % 512 != 0 || diskBytes > DeltaFormat.MostDiskBytes)
        {
            throw ReplicaError.Damaged(path, $"point {point} of a disk of {diskBytes} bytes cannot be");
        }

        _path = path;
        _part = path + ".new";
        _tree = TreeFile.Begin(_part, point, diskBytes);
        _update = new TreeUpdate(_tree, diskBytes, writes: true);
    }

    /// <summary>Takes the next leaves.</summary>
    /// <param name="leaves">32 bytes each.</param>
    /// <exception cref="BlockException">There are more than the disk has extents, or the host failed.</exception>
    public void Add(ReadOnlySpan<byte> leaves)
    {
        if (leaves.Length % DeltaFormat.HashBytes != 0 || (ulong)(leaves.Length / DeltaFormat.HashBytes) > _tree.Extents - _next)
        {
            throw ReplicaError.Damaged(_path, $"{leaves.Length} bytes of hashes after {_next} of {_tree.Extents} extents");
        }

        for (; !leaves.IsEmpty; leaves = leaves[DeltaFormat.HashBytes..])
        {
            Set(_next, leaves[..DeltaFormat.HashBytes]);
        }
    }

    /// <summary>All leaves are there, those that did not come are of zeros: the file gets its name.</summary>
    /// <param name="root">The root that they have to have, 64 hexadecimal digits.</param>
    /// <exception cref="BlockException">They have another one, or the host failed.</exception>
    public void Complete(string root)
    {
        _ = _update.Finish();
        Store(Convert.FromHexString(root));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _tree.Dispose();
        File.Delete(_part); // gone when it got its name
    }

    /// <summary>Takes a leaf; those left out before it are of zeros.</summary>
    internal void Set(ulong extent, ReadOnlySpan<byte> leaf)
    {
        _next = extent + 1;
        if (!leaf.SequenceEqual(DeltaFormat.ZeroLeaf))
        {
            _update.Set(extent, leaf);
        }
    }

    /// <summary>The same with the root that they have.</summary>
    /// <returns>The root, 64 hexadecimal digits.</returns>
    internal string Complete()
    {
        byte[] root = _update.Finish();
        Store(root);
        return Convert.ToHexStringLower(root);
    }

    private void Store(ReadOnlySpan<byte> root)
    {
        _tree.End(root);
        try
        {
            File.Move(_part, _path, overwrite: true);
            HostFolder.Flush(Path.GetDirectoryName(_path) ?? "/");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(_path, "cannot get its name", e);
        }
    }
}
