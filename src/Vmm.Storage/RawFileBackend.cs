using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// A disk that is a raw file or a block device. With O_DIRECT all reads and writes use the direct descriptor; what O_DIRECT would refuse
/// (misaligned memory or range) goes through bounce buffers. The buffered descriptor then holds the lock and serves fdatasync and fallocate
/// only.
/// </summary>
public sealed class RawFileBackend : IDiskBackend
{
    private readonly FileDescriptorHandle _buffered;
    private readonly FileDescriptorHandle? _direct;
    private readonly RawFileOptions _options;

    private RawFileBackend(
        string path, RawFileOptions options, FileDescriptorHandle buffered, FileDescriptorHandle? direct, BlockFileInfo info)
    {
        Path = path;
        _options = options;
        _buffered = buffered;
        _direct = direct;
        DiskAbilities abilities = options.ReadOnly ? DiskAbilities.None
            : DiskAbilities.WriteZeroes | (options.Discard ? DiskAbilities.Discard : DiskAbilities.None);
        Geometry = new BlockGeometry(
            info.Size, (int)info.LogicalBlock, (int)Math.Max(info.PhysicalBlock, info.LogicalBlock), options.ReadOnly, abilities);
        DirectMemoryAlign = Math.Max(info.DirectMemoryAlign, 1);
        DirectOffsetAlign = Math.Max(info.DirectOffsetAlign, 512);
        if (direct is not null && DirectOffsetAlign > 512)
        {
            Ranges = new WriteRanges();
        }
    }

    /// <summary>The file or device.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public BlockGeometry Geometry { get; }

    /// <summary>True when aligned requests bypass the host's page cache.</summary>
    public bool UsesDirectIo => _direct is not null;

    /// <summary>The locked descriptor through the page cache. To be passed on; stays this object's.</summary>
    public FileDescriptorHandle Buffered => _buffered;

    /// <summary>The descriptor past the page cache, null without one. To be passed on; stays this object's.</summary>
    public FileDescriptorHandle? Direct => _direct;

    internal uint DirectMemoryAlign { get; }

    internal uint DirectOffsetAlign { get; }

    internal bool MayDiscard => _options.Discard;

    /// <summary>
    /// The writes in flight of all queues; null when no request can need a read-modify-write, which is when the blocks of O_DIRECT are
    /// sectors.
    /// </summary>
    internal WriteRanges? Ranges { get; }

    /// <summary>Opens and locks the disk: any number of readers, or one writer.</summary>
    /// <exception cref="BlockException">It is missing, forbidden, in use, of odd size, or not a file or block device.</exception>
    public static RawFileBackend Open(string path, RawFileOptions? options = null)
    {
        options ??= new RawFileOptions();
        return Open(path, options, OpenFile(path, options, direct: false));
    }

    /// <summary>
    /// The same for a file that the caller found and opened, to read and write unless <paramref name="options"/> say to read only; takes it
    /// over.
    /// </summary>
    /// <exception cref="BlockException">It is in use, of odd size, or not a file or block device.</exception>
    public static RawFileBackend Open(string path, RawFileOptions options, FileDescriptorHandle buffered)
    {
        FileDescriptorHandle? direct = null;
        try
        {
            BlockFileInfo info = Examine(path, options, buffered);
            if (!Lock(path, buffered, exclusive: !options.ReadOnly))
            {
                throw new BlockException(BlockErrorKind.InUse, options.ReadOnly
                    ? $"disk {path} is being written by another virtual machine or tool"
                    : $"disk {path} is in use by another virtual machine or tool; open it read-only in all of them, or stop the other one")
                { Path = path };
            }

            if (options.Cache == DiskCacheMode.Direct)
            {
                direct = TryOpenDirect(options, buffered, ref info);
            }

            return new RawFileBackend(path, options, buffered, direct, info);
        }
        catch
        {
            direct?.Dispose();
            buffered.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Takes over the descriptors of a disk that another process opened and locked with <see cref="Open(string, RawFileOptions)"/>; the
    /// lock came with them.
    /// </summary>
    /// <exception cref="BlockException">Not a disk this can use.</exception>
    public static RawFileBackend FromDescriptors(
        string path, RawFileOptions options, FileDescriptorHandle buffered, FileDescriptorHandle? direct)
    {
        try
        {
            BlockFileInfo info = Examine(path, options, buffered);
            if (direct is not null)
            {
                info = DirectInfo(direct);
            }

            return new RawFileBackend(path, options, buffered, direct, info);
        }
        catch (Exception error)
        {
            direct?.Dispose();
            buffered.Dispose();
            throw error is KernelException
                ? new BlockException(BlockErrorKind.Io, $"disk {path}: {error.Message}", error) { Path = path }
                : error;
        }
    }

    /// <summary>
    /// Gives its locked descriptor away, and is over: for a device that uses the file in another way than as a disk. The lock goes along.
    /// </summary>
    public FileDescriptorHandle Detach()
    {
        _direct?.Dispose();
        return _buffered;
    }

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        try
        {
            return new RawNode(this, loop, depth);
        }
        catch (KernelException error)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {Path}: no I/O queue: {error.Message}", error) { Path = Path };
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _direct?.Dispose();
        _buffered.Dispose();
    }

    private static FileDescriptorHandle OpenFile(string path, RawFileOptions options, bool direct)
    {
        try
        {
            return BlockFile.Open(path, !options.ReadOnly, direct);
        }
        catch (KernelException error)
        {
            (BlockErrorKind kind, string why) = error.Errno switch
            {
                Errno.ENOENT => (BlockErrorKind.NotFound, "does not exist"),
                Errno.EACCES or Errno.EPERM =>
                    (BlockErrorKind.AccessDenied, options.ReadOnly ? "may not be read by this user" : "may not be written by this user"),
                Errno.EROFS => (BlockErrorKind.AccessDenied, "is on a read-only file system"),
                Errno.EISDIR => (BlockErrorKind.NotADisk, "is a directory"),
                Errno.ENOTBLK => (BlockErrorKind.NotADisk, "is neither a file nor a block device"),
                _ => (BlockErrorKind.Io, error.Message),
            };
            throw new BlockException(kind, $"disk {path} {why}", error) { Path = path };
        }
    }

    private static BlockFileInfo Examine(string path, RawFileOptions options, FileDescriptorHandle file)
    {
        BlockFileInfo info = BlockFile.Inspect(file);
        if (info.Kind == BlockFileKind.Other)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {path} is neither a file nor a block device") { Path = path };
        }

        if (info.Size == 0 || info.Size % 512 != 0 || info.Size > long.MaxValue)
        {
            throw new BlockException(BlockErrorKind.BadSize, info.Size == 0
                ? $"disk {path} is empty; create it with a size first (for example: truncate -s 1G {path})"
                : $"disk {path} is {info.Size} bytes, not a multiple of 512; is it a raw disk image?")
            { Path = path };
        }

        return info.ReadOnly != 0 && !options.ReadOnly
            ? throw new BlockException(BlockErrorKind.AccessDenied, $"disk {path} is write-protected; open it read-only") { Path = path }
            : info;
    }

    private static bool Lock(string path, FileDescriptorHandle file, bool exclusive)
    {
        try
        {
            return BlockFile.TryLock(file, exclusive);
        }
        catch (KernelException error)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {path} cannot be locked: {error.Message}", error) { Path = path };
        }
    }

    // Opened through the descriptor, so that both are the same file whatever happens to the name.
    private static FileDescriptorHandle? TryOpenDirect(RawFileOptions options, FileDescriptorHandle buffered, ref BlockFileInfo info)
    {
        FileDescriptorHandle? direct = null;
        try
        {
            direct = BlockFile.Open($"/proc/self/fd/{buffered.Number}", !options.ReadOnly, direct: true);
            info = DirectInfo(direct);
            if (Suits(info))
            {
                return direct;
            }

            direct.Dispose();
            return null;
        }
        catch (KernelException error) when (error.Errno is Errno.EINVAL or Errno.EACCES or Errno.ENOENT)
        {
            direct?.Dispose();
            return null;
        }
    }

    // The last block has to be whole, since it is written whole, and a block has to fit into a bounce buffer.
    private static bool Suits(in BlockFileInfo info) => info.DirectOffsetAlign <= BounceBuffers.BufferBytes / 2
        && BounceBuffers.BufferBytes % Math.Max(info.DirectOffsetAlign, 1) == 0 && info.Size % Math.Max(info.DirectOffsetAlign, 1) == 0;

    // A file system that does not tell its alignment: a page satisfies every device there is.
    private static BlockFileInfo DirectInfo(FileDescriptorHandle direct)
    {
        BlockFileInfo own = BlockFile.Inspect(direct);
        return own.DirectOffsetAlign != 0 ? own : own with { DirectMemoryAlign = 4096, DirectOffsetAlign = 4096 };
    }
}
