using Microsoft.Win32.SafeHandles;
using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>
/// The hashes of all extents of a disk at a point, in a sparse file: what a delta has to stand on. It has the same root as the tree of a
/// sealed delta. It is brought from point to point by deltas (<see cref="Advance(string, string)"/>); a death meanwhile is repaired by the
/// same delta. In memory are the nodes: 32 bytes for 256 MiB of disk. For one thread.
/// </summary>
public sealed class TreeFile : IDisposable
{
    private readonly SafeFileHandle _file;
    private byte[] _nodes = [];
    private TreeHeader _header;

    private TreeFile(string path, SafeFileHandle file) => (FilePath, _file) = (path, file);

    /// <summary>The file.</summary>
    public string FilePath { get; }

    /// <summary>Bytes of the disk.</summary>
    public ulong DiskBytes => _header.DiskBytes;

    /// <summary>The point whose hashes these are.</summary>
    public Guid Point => _header.Point;

    /// <summary>The point that a death kept it from being brought to; empty: it is sound.</summary>
    public Guid Pending => _header.Pending;

    /// <summary>The root, 64 hexadecimal digits.</summary>
    public string Root => Convert.ToHexStringLower(_header.Root);

    /// <summary>Extents of the disk.</summary>
    public ulong Extents => DeltaFormat.ExtentsOf(DiskBytes);

    /// <summary>The root as bytes.</summary>
    internal byte[] RootBytes => _header.Root;

    /// <summary>The nodes as the file has them.</summary>
    internal ReadOnlySpan<byte> Nodes => _nodes;

    /// <summary>Opens a tree file. Its nodes are checked with its root; the leaves of a node are when it is changed.</summary>
    /// <exception cref="BlockException">It is not there, is none or damaged, or the host failed.</exception>
    public static TreeFile Open(string path) => Open(path, writable: false);

    /// <summary>Brings a tree file to the point of a sealed delta. That of a full one is made anew.</summary>
    /// <param name="path">The tree file.</param>
    /// <param name="delta">The sealed delta.</param>
    /// <exception cref="BlockException">The delta does not stand on the tree's point, either is damaged, or the host failed: the tree
    /// is at its point, or <see cref="Pending"/> and can be brought on by the same delta.</exception>
    public static void Advance(string path, string delta)
    {
        using DeltaReader reader = DeltaReader.Open(delta);
        Advance(path, reader);
    }

    /// <summary>Reads leaves.</summary>
    /// <param name="from">The first extent.</param>
    /// <param name="leaves">Gets 32 bytes for each.</param>
    /// <returns>How many there are: fewer than asked for at the end of the disk.</returns>
    /// <exception cref="BlockException">The file is not sound, or the host failed.</exception>
    public int ReadLeaves(ulong from, Span<byte> leaves)
    {
        if (Pending != Guid.Empty)
        {
            throw ReplicaError.Damaged(FilePath, $"it is being brought to point {Pending}: that has to end first");
        }

        int count = (int)Math.Min((ulong)(leaves.Length / DeltaFormat.HashBytes), from < Extents ? Extents - from : 0);
        Span<byte> part = leaves[..(count * DeltaFormat.HashBytes)];
        Read(part, LeafOffset(from));
        TreeFormat.Expand(part);
        return count;
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    /// <inheritdoc cref="Advance(string, string)"/>
    internal static void Advance(string path, DeltaReader delta, Action? atStep = null)
    {
        if (delta.Header.IsFull)
        {
            using TreeBuilder builder = new(path, delta.Header.Point, delta.Header.DiskBytes);
            DeltaCursor all = delta.Begin();
            while (all.MoveNext())
            {
                builder.Set(all.Current.Extent, all.Current.Leaf.Span);
            }

            builder.Complete(Convert.ToHexString(delta.Seal.Root));
            return;
        }

        using TreeFile tree = Open(path, writable: true);
        if (tree.Pending != Guid.Empty || tree.Point != delta.Header.Point)
        {
            tree.Take(delta, atStep);
        }
    }

    /// <summary>Makes a file for leaves to come. It is pending until <see cref="End"/>.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static TreeFile Begin(string path, Guid point, ulong diskBytes)
    {
        try
        {
            TreeFile made = new(path, File.OpenHandle(path, FileMode.Create, FileAccess.ReadWrite, FileShare.None));
            made._nodes = new byte[TreeFormat.NodesOf(diskBytes) * DeltaFormat.HashBytes];
            made.Store(new TreeHeader(diskBytes, Guid.Empty, point, new byte[DeltaFormat.HashBytes]));
            return made;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(path, "cannot be made", e);
        }
    }

    /// <summary>All leaves are there: makes them stable, and then the point theirs.</summary>
    /// <param name="root">The root as it has to be.</param>
    /// <exception cref="BlockException">It is another one, or the host failed.</exception>
    internal void End(ReadOnlySpan<byte> root)
    {
        byte[] own = TreeFormat.RootOf(DiskBytes, _nodes);
        if (!own.AsSpan().SequenceEqual(root))
        {
            throw ReplicaError.Damaged(
                FilePath, $"its hashes have the root {Convert.ToHexStringLower(own)}, and not that of point {Pending}");
        }

        Sync();
        Store(new TreeHeader(DiskBytes, Pending, Guid.Empty, own));
    }

    /// <summary>Reads the leaves of a node as the file has them, and checks them when the file is sound.</summary>
    /// <exception cref="BlockException">They are damaged, or the host failed.</exception>
    internal void ReadPage(int node, Span<byte> page, Span<byte> scratch)
    {
        Read(page, LeafOffset((ulong)node * TreeFormat.LeavesOfNode));
        ReadOnlySpan<byte> hash = _nodes.AsSpan(node * DeltaFormat.HashBytes, DeltaFormat.HashBytes);
        if (Pending == Guid.Empty && (hash.ContainsAnyExcept((byte)0)
            ? !TreeFormat.HashOf(page, scratch).AsSpan().SequenceEqual(hash) : page.ContainsAnyExcept((byte)0)))
        {
            throw ReplicaError.Damaged(
                FilePath, $"the hashes from extent {(ulong)node * TreeFormat.LeavesOfNode} on are not what they were");
        }
    }

    /// <summary>Writes a node and its leaves.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal void WritePage(int node, ReadOnlySpan<byte> page, ReadOnlySpan<byte> hash)
    {
        Write(page, LeafOffset((ulong)node * TreeFormat.LeavesOfNode));
        hash.CopyTo(_nodes.AsSpan(node * DeltaFormat.HashBytes));
        Write(hash, TreeFormat.NodesOffset + ((ulong)node * DeltaFormat.HashBytes));
    }

    /// <summary>The first extent from there on, and before an end, that is not zeros; the end when there is none.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal ulong NextData(ulong from, ulong end)
    {
        end = Math.Min(end, Extents);
        Span<byte> leaves = stackalloc byte[64 * DeltaFormat.HashBytes];
        while (from < end)
        {
            ulong node = from / TreeFormat.LeavesOfNode;
            if (!_nodes.AsSpan((int)node * DeltaFormat.HashBytes, DeltaFormat.HashBytes).ContainsAnyExcept((byte)0))
            {
                from = (node + 1) * TreeFormat.LeavesOfNode;
                continue;
            }

            ulong stop = Math.Min(end, (node + 1) * TreeFormat.LeavesOfNode);
            Span<byte> part = leaves[..(int)(Math.Min(64, stop - from) * DeltaFormat.HashBytes)];
            Read(part, LeafOffset(from));
            int at = part.IndexOfAnyExcept((byte)0);
            if (at >= 0)
            {
                return from + (uint)(at / DeltaFormat.HashBytes);
            }

            from += (uint)(part.Length / DeltaFormat.HashBytes);
        }

        return end;
    }

    private static ulong LeafOffset(ulong extent) => TreeFormat.LeavesOffset + (extent * DeltaFormat.HashBytes);

    private static TreeFile Open(string path, bool writable)
    {
        TreeFile? tree = null;
        try
        {
            tree = new TreeFile(path, File.OpenHandle(
                path, FileMode.Open, writable ? FileAccess.ReadWrite : FileAccess.Read, writable ? FileShare.None : FileShare.Read));
            byte[] header = new byte[TreeFormat.HeaderBytes];
            tree.Read(header, 0);
            tree._header = TreeFormat.Parse(header, path);
            tree.ReadNodes(tree.DiskBytes);
            return tree;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw e is FileNotFoundException or DirectoryNotFoundException
                ? new BlockException(BlockErrorKind.NotFound, $"replica file {path} is missing", e) { Path = path }
                : ReplicaError.Failed(path, "cannot be read", e);
        }
        catch
        {
            tree?.Dispose();
            throw;
        }
    }

    private void ReadNodes(ulong diskBytes)
    {
        _nodes = new byte[TreeFormat.NodesOf(diskBytes) * DeltaFormat.HashBytes];
        Read(_nodes, TreeFormat.NodesOffset);
        if (Pending == Guid.Empty && !TreeFormat.RootOf(DiskBytes, _nodes).AsSpan().SequenceEqual(_header.Root))
        {
            throw ReplicaError.Damaged(FilePath, "its nodes do not match its root");
        }
    }

    private void Take(DeltaReader delta, Action? atStep)
    {
        DeltaHeader header = delta.Header;
        string? problem = Pending != Guid.Empty && Pending != header.Point ? $"it is being brought to point {Pending}"
            : Point != header.Parent || !_header.Root.AsSpan().SequenceEqual(header.ParentRoot) ? $"it is at point {Point}"
            : header.DiskBytes < DiskBytes && Pending == Guid.Empty ? "it is of a larger disk"
            : null;
        if (problem is not null)
        {
            throw ReplicaError.Damaged(FilePath, $"{problem}, and {delta.Path} does not stand on that");
        }

        Store(_header with { DiskBytes = header.DiskBytes, Pending = header.Point });
        atStep?.Invoke();
        Array.Resize(ref _nodes, TreeFormat.NodesOf(header.DiskBytes) * DeltaFormat.HashBytes);
        TreeUpdate update = new(this, header.DiskBytes, writes: true);
        DeltaCursor cursor = delta.Begin();
        while (cursor.MoveNext())
        {
            update.Set(cursor.Current.Extent, cursor.Current.Leaf.Span);
            atStep?.Invoke();
        }

        _ = update.Finish();
        atStep?.Invoke();
        End(delta.Seal.Root);
    }

    private void Store(TreeHeader header)
    {
        Write(TreeFormat.Encode(header), 0);
        Sync();
        _header = header;
    }

    private void Read(Span<byte> bytes, ulong offset)
    {
        try
        {
            while (!bytes.IsEmpty)
            {
                int read = RandomAccess.Read(_file, bytes, (long)offset);
                if (read == 0)
                {
                    bytes.Clear(); // behind the end are zeros
                    return;
                }

                bytes = bytes[read..];
                offset += (uint)read;
            }
        }
        catch (IOException e)
        {
            throw ReplicaError.Failed(FilePath, "cannot be read", e);
        }
    }

    private void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        try
        {
            RandomAccess.Write(_file, bytes, (long)offset);
        }
        catch (IOException e)
        {
            throw ReplicaError.Failed(FilePath, "cannot be written", e);
        }
    }

    private void Sync()
    {
        try
        {
            RandomAccess.FlushToDisk(_file);
        }
        catch (IOException e)
        {
            throw ReplicaError.Failed(FilePath, "cannot be made stable", e);
        }
    }
}
