using Vmm.Interop;
using Vmm.Io;
using static Vmm.Storage.RawFileOpening;

namespace Vmm.Storage;

/// <summary>
/// A disk that is a raw file or a block device. With O_DIRECT all reads and writes use the direct descriptor; what O_DIRECT would refuse
/// (misaligned memory or range) goes through bounce buffers. The buffered descriptor then holds the lock and serves fdatasync and fallocate
/// only.
/// </summary>
public sealed class RawFileBackend : IDetachableDisk
{
    // Nodes of an image have no end of their own: what is asked for was found in its tables.
    private const ulong ImageCapacity = 1ul << 62;

    private const ulong LeastSpace = 1 << 20;

    private readonly FileDescriptorHandle _buffered;
    private readonly FileDescriptorHandle? _direct;
    private readonly RawFileOptions _options;
    private readonly BlockFileInfo _info;
    private bool _hasLostFlush, _isOver;
    private bool _isWriter; // what lock it has
    private readonly Lock _refreshing = new();
    private volatile Shape _shape;
    private Action? _changed;

    private RawFileBackend(
        string path, RawFileOptions options, FileDescriptorHandle buffered, FileDescriptorHandle? direct, BlockFileInfo info)
    {
        Path = path;
        _options = options;
        _isWriter = !options.ReadOnly;
        _info = info;
        _buffered = buffered;
        _direct = direct;
        DiskAbilities abilities = options.ReadOnly ? DiskAbilities.None
            : DiskAbilities.WriteZeroes | (options.Discard ? DiskAbilities.Discard : DiskAbilities.None);
        ulong size = options.IsImage ? ImageCapacity : info.Size;
        _shape = new(new BlockGeometry(
            size, (int)info.LogicalBlock, (int)Math.Max(info.PhysicalBlock, info.LogicalBlock), options.ReadOnly, abilities)
        {
            MinimumIo = info.MinimumIo,
            OptimalIo = info.OptimalIo,
            AlignmentOffset = info.AlignmentOffset,
        });
        LeastLength = options.IsImage ? info.Size : 0;
        DirectMemoryAlign = Math.Max(info.DirectMemoryAlign, 1);
        DirectOffsetAlign = Math.Max(info.DirectOffsetAlign, 512);
        if (direct is not null && DirectOffsetAlign > 512)
        {
            Ranges = new WriteRanges();
        }

        Flushes = options.ReadOnly || options.IsImage ? null : new FlushGate();
    }

    /// <summary>The file or device.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public BlockGeometry Geometry => _shape.Geometry;

    /// <summary>True when aligned requests bypass the host's page cache.</summary>
    public bool UsesDirectIo => _direct is not null;

    /// <summary>The locked descriptor through the page cache. To be passed on; stays this object's.</summary>
    public FileDescriptorHandle Buffered => _buffered;

    /// <summary>The descriptor past the page cache, null without one. To be passed on; stays this object's.</summary>
    public FileDescriptorHandle? Direct => _direct;

    /// <summary>What an image's file had when it was opened: nobody but a stranger cuts it. Behind it, it reads as zeros.</summary>
    internal ulong LeastLength { get; }

    internal uint DirectMemoryAlign { get; }

    internal uint DirectOffsetAlign { get; }

    internal bool MayDiscard => _options.Discard;

    /// <summary>
    /// A flush failed: no later one succeeds. The host may have dropped what that one was for, and would say that the next is fine
    /// (fsync(2)).
    /// </summary>
    internal bool HasLostFlush
    {
        get => Volatile.Read(ref _hasLostFlush);
        set => Volatile.Write(ref _hasLostFlush, value);
    }

    internal bool IsImage => _options.IsImage;

    /// <summary>
    /// The writes in flight of all queues; null when no request can need a read-modify-write, which is when the blocks of O_DIRECT are
    /// sectors.
    /// </summary>
    internal WriteRanges? Ranges { get; }

    /// <summary>The flushes of all queues; null for what is not written, and for an image, whose owner lets one flush at a time.</summary>
    internal FlushGate? Flushes { get; }

    /// <summary>How a flush gets to the kernel: tests make one that loses writes.</summary>
    internal Action<IoLoop, BlockRequest, FileDescriptorHandle> IssueFlush { get; set; } =
        static (loop, request, file) => loop.DataSync(request, file);

    /// <summary>Opens and locks the disk: any number of readers, or one writer.</summary>
    /// <exception cref="BlockException">It is missing, forbidden, in use, of odd size, or not a file or block device.</exception>
    public static RawFileBackend Open(string path, RawFileOptions? options = null)
    {
        options ??= new RawFileOptions();
        return Open(path, options, OpenFile(path, !options.ReadOnly));
    }

    /// <summary>
    /// The same for a file that the caller found and opened, to read and write unless <paramref name="options"/> say to read only; takes it
    /// over.
    /// </summary>
    /// <exception cref="BlockException">It is in use, of odd size, or not a file or block device.</exception>
    public static RawFileBackend Open(string path, RawFileOptions options, FileDescriptorHandle buffered) =>
        Open(path, options, buffered, exclusive: !options.ReadOnly);

    /// <summary>
    /// Opens an image that is a base, and is to be written later: it is locked as one that is read, beside others that read it. Takes the
    /// file over, which was opened to write.
    /// </summary>
    /// <exception cref="BlockException">Somebody writes it, or it is no file or block device.</exception>
    public static RawFileBackend OpenBase(string path, RawFileOptions options, FileDescriptorHandle buffered)
    {
        RawFileBackend file = Open(path, options with { IsImage = true, ReadOnly = false }, buffered, exclusive: false);
        file._shape = new(file.Geometry with { ReadOnly = true, Abilities = DiskAbilities.None });
        file._isWriter = false;
        return file;
    }

    /// <summary>Who has a lock on the file beside this process and another one; null: nobody who can be seen here.</summary>
    /// <param name="process">The other process.</param>
    public string? OthersThan(int process) => LockHolders.DescribeOthers(_buffered, _options.VmOf, process);

    private static RawFileBackend Open(string path, RawFileOptions options, FileDescriptorHandle buffered, bool exclusive)
    {
        FileDescriptorHandle? direct = null;
        try
        {
            BlockFileInfo info = Examine(path, options, buffered);
            if (!TakeLock(path, () => DiskLock.TryTake(buffered, exclusive)))
            {
                throw InUse(path, options, buffered);
            }

            if (options.Cache == DiskCacheMode.Direct)
            {
                direct = TryOpenDirect(options, buffered, ref info);
                if (direct is not null && exclusive && !TakeLock(path, () => DiskLock.TryShare(buffered, direct)))
                {
                    throw InUse(path, options, buffered);
                }
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
    public FileDescriptorHandle TakeDescriptor()
    {
        _direct?.Dispose();
        return _buffered;
    }

    /// <inheritdoc/>
    public void OnGeometryChanged(Action changed) => _changed = changed;

    /// <inheritdoc/>
    public void Refresh()
    {
        if (IsImage)
        {
            return;
        }

        lock (_refreshing)
        {
            ulong before = Geometry.CapacityBytes, now = SizeNow();
            // With O_DIRECT the last block is written whole: what lies behind the last whole one waits until there is more.
            now -= now % (_direct is null ? 512 : DirectOffsetAlign);
            if (now < before)
            {
                throw new BlockException(
                    BlockErrorKind.BadSize,
                    $"disk {Path} has shrunk under its guest, from {before} to {now} bytes: requests behind its end fail; "
                        + "give it its size back")
                { Path = Path };
            }

            if (now > before)
            {
                _shape = new(Geometry with { CapacityBytes = now });
                _changed?.Invoke();
            }
        }
    }

    /// <inheritdoc/>
    public bool HasSpace => BlockFile.FreeBytes(_buffered) is not { } free || free >= LeastSpace;

    private ulong SizeNow()
    {
        try
        {
            return BlockFile.Inspect(_buffered).Size;
        }
        catch (KernelException error)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {Path}: its size cannot be read: {error.Message}", error) { Path = Path };
        }
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
    public ulong DataFrom(ulong offset)
    {
        try
        {
            return DataExtents.TryFindNext(_buffered, offset, out ulong data, out _) ? data : Geometry.CapacityBytes;
        }
        catch (KernelException)
        {
            return offset; // a block device, or a file system that cannot say
        }
    }

    /// <inheritdoc/>
    public DetachedDisk Detach()
    {
        ulong capacity = Geometry.CapacityBytes;
        RawFileBackend image = As(_options with { IsImage = true, ReadOnly = true }, capacity);
        try
        {
            RawImageFile file = new(image);
            return new DetachedDisk([new ImageLayer(file, ImageFormat.Raw)], () => file.Release().As(_options, capacity));
        }
        catch (Exception cause) when (cause is KernelException or OutOfMemoryException)
        {
            return new DetachedDisk([], () => image.As(_options, capacity), $"disk {Path}: {cause.Message}", image);
        }
    }

    /// <summary>The same open files, used in another way. This object is over, and its nodes have to be.</summary>
    /// <param name="options">How.</param>
    /// <param name="size">Bytes of the disk; of an image, what its file has at least.</param>
    internal RawFileBackend As(RawFileOptions options, ulong size)
    {
        _isOver = true;
        return new RawFileBackend(Path, options, _buffered, _direct, _info with { Size = size })
        {
            HasLostFlush = HasLostFlush,
            _isWriter = _isWriter,
        };
    }

    /// <summary>The same open files of an image as a raw disk.</summary>
    internal RawFileBackend AsDisk(ulong size) => As(_options with { IsImage = false, ReadOnly = false }, size);

    /// <summary>
    /// The file becomes a base: nothing writes it any more, and its lock becomes a reader's, without a moment in which somebody else could
    /// write. A lock that the kernel does not change stays a writer's, which keeps more away than need be.
    /// </summary>
    internal void BecomeBase()
    {
        _shape = new(Geometry with { ReadOnly = true, Abilities = DiskAbilities.None });
        _isWriter = false;
        try
        {
            DiskLock.ToReader(_buffered, _direct);
        }
        catch (KernelException)
        {
            // as above
        }
    }

    /// <summary>
    /// A base becomes an image that is written; it was opened to write. False when somebody else reads it: it stays a base.
    /// </summary>
    /// <exception cref="KernelException">The file system has no locks.</exception>
    internal bool TryBecomeTop()
    {
        if (!DiskLock.TryToWriter(_buffered, _direct))
        {
            return false;
        }

        _isWriter = true;
        DiskAbilities abilities = DiskAbilities.WriteZeroes | (_options.Discard ? DiskAbilities.Discard : DiskAbilities.None);
        _shape = new(Geometry with { ReadOnly = false, Abilities = abilities });
        return true;
    }

    /// <summary>
    /// Somebody else may use the file from now on; it stays open. Nothing is read or written until <see cref="LockAgain"/>.
    /// </summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    internal void Unlock()
    {
        BlockFile.Unlock(_buffered, 0, 0);
        if (_direct is not null)
        {
            BlockFile.Unlock(_direct, 0, 0);
        }
    }

    /// <summary>Takes the lock again that it had.</summary>
    /// <exception cref="BlockException">Somebody else uses the file; the message says who.</exception>
    internal void LockAgain()
    {
        bool isLocked = TakeLock(Path, () => DiskLock.TryTake(_buffered, _isWriter)
            && (_direct is null || !_isWriter || DiskLock.TryShare(_buffered, _direct)));
        if (!isLocked)
        {
            throw InUse(Path, _options with { ReadOnly = !_isWriter }, _buffered);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_isOver)
        {
            _direct?.Dispose();
            _buffered.Dispose();
        }
    }

    // An object, so that threads see all of it or nothing.
    private sealed class Shape(in BlockGeometry geometry)
    {
        internal BlockGeometry Geometry { get; } = geometry;
    }
}
