using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The files of a disk, opened by the rule of storage folders and locked. The locks belong to the open files, so they go along with their
/// descriptors.
/// </summary>
internal sealed class DiskFiles : IDisposable
{
    private readonly DiskImageChain _files; // empty for one of a server
    private readonly FileDescriptorHandle? _socket;

    private DiskFiles(DiskImageChain files, bool isImage) => (_files, IsImage) = (files, isImage);

    private DiskFiles(FileDescriptorHandle socket) => (_files, _socket) = (DiskImageChain.Of([]), socket);

    /// <summary>It is a connected socket, and no file.</summary>
    internal bool IsServer => _socket is not null;

    /// <summary>False for a raw disk.</summary>
    internal bool IsImage { get; }

    /// <summary>How many images there are.</summary>
    internal int Images => _files.Images.Count;

    /// <summary>The images below, the nearest first.</summary>
    internal IReadOnlyList<BackingSpec> Backing =>
    [
        .. _files.Images.Skip(1).Select(image =>
            new BackingSpec(image.File.Path, image.Format == ImageFormat.Qcow2 ? DiskFormat.Qcow2 : DiskFormat.Raw)),
    ];

    /// <summary>The most bytes that its regular file can come to have; 0 for a block device, which cannot grow by writing.</summary>
    internal ulong MostBytes
    {
        get
        {
            if (IsServer)
            {
                return 0;
            }

            BlockFileInfo info = BlockFile.Inspect(_files.Images[0].File.Buffered);
            return info.Kind != BlockFileKind.RegularFile ? 0 : IsImage ? _files.MostBytes : info.Size;
        }
    }

    /// <summary>Bytes of the top's file; 0 for a block device.</summary>
    internal ulong LengthNow =>
        BlockFile.Inspect(_files.Images[0].File.Buffered) is { Kind: BlockFileKind.RegularFile, Size: var now } ? now : 0;

    /// <summary>What somebody may want to know of its content; null is nothing.</summary>
    internal string? Remark => IsImage || IsServer ? null : RawContent.Remark(_files.Images[0].File);

    /// <summary>Opens the files of a disk.</summary>
    /// <exception cref="WorkerException">One cannot be opened.</exception>
    internal static DiskFiles Open(DiskSpec disk, DiskAccess access) => Guard(() =>
    {
        StorageFolders storage = access.Storage;
        if (disk.Nbd is { } nbd)
        {
            return new DiskFiles(Connect(disk.Path, nbd, storage));
        }

        if (disk.Rbd is { } rbd)
        {
            return new DiskFiles(Start(disk, rbd, access));
        }

        RawFileOptions options = new()
        {
            VmOf = access.VmOf,
            ReadOnly = disk.ReadOnly,
            Cache = disk.Cache == DiskCache.Direct ? DiskCacheMode.Direct : DiskCacheMode.Buffered,
        };
        if (disk.ReadOnly && access.Seeds?.Owns(access.VmId, disk.Path) == true)
        {
            return new DiskFiles(
                DiskImageChain.Of([new ChainImage(RawFileBackend.Open(disk.Path, options), ImageFormat.Raw)]), isImage: false);
        }

        return disk.Format == DiskFormat.Qcow2
            ? new DiskFiles(DiskImageChain.Open(disk.Path, options, (path, writable) => OpenImage(storage, path, writable)), isImage: true)
            : new DiskFiles(DiskImageChain.Of([new ChainImage(Open(disk.Path, options, storage), ImageFormat.Raw)]), isImage: false);
    });

    /// <summary>Opens a qcow2 image, to write it, without what is below it: somebody has that open.</summary>
    /// <exception cref="WorkerException">It cannot be opened.</exception>
    internal static DiskFiles OpenTop(DiskSpec disk, DiskAccess access) => Guard(() =>
    {
        RawFileOptions options = new()
        {
            VmOf = access.VmOf,
            IsImage = true,
            Cache = disk.Cache == DiskCache.Direct ? DiskCacheMode.Direct : DiskCacheMode.Buffered,
        };
        RawFileBackend file = Open(disk.Path, options, access.Storage);
        try
        {
            ChainImage image = new(file, ImageFormat.Qcow2, DiskImageChain.ReadHeader(file));
            return new DiskFiles(DiskImageChain.Of([image]), isImage: true);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    });

    /// <summary>
    /// Opens an image that a worker has open as a base, to write it; it is locked as a base still. A worker that does not have it open
    /// gets nothing: what names it was an image's word, perhaps a guest's.
    /// </summary>
    /// <param name="disk">The image, as a disk.</param>
    /// <param name="access">How disks are opened.</param>
    /// <param name="process">The worker's process.</param>
    /// <exception cref="WorkerException">It cannot be opened, or somebody else uses it.</exception>
    internal static DiskFiles OpenBase(DiskSpec disk, DiskAccess access, int process) => Guard(() =>
    {
        RawFileOptions options = new()
        {
            VmOf = access.VmOf,
            Cache = disk.Cache == DiskCache.Direct ? DiskCacheMode.Direct : DiskCacheMode.Buffered,
        };
        bool isImage = disk.Format == DiskFormat.Qcow2;
        RawFileBackend file = RawFileBackend.OpenBase(disk.Path, options, access.Storage.Open(disk.Path, writable: true));
        try
        {
            if (!OpenFiles.MayHold(process, BlockFile.Identify(file.Buffered)))
            {
                throw new BlockException(BlockErrorKind.AccessDenied, $"disk {disk.Path} is not below a disk of this VM that runs")
                { Path = disk.Path };
            }

            return file.OthersThan(process) is { } others
                ? throw new BlockException(BlockErrorKind.InUse, $"disk {disk.Path} is in use by {others}, and would change under it")
                { Path = disk.Path }
                : new DiskFiles(
                    DiskImageChain.Of([new ChainImage(file, isImage ? ImageFormat.Qcow2 : ImageFormat.Raw)]), isImage);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    });

    /// <summary>Opens a file of a device that is no disk.</summary>
    /// <exception cref="WorkerException">It cannot be opened.</exception>
    internal static RawFileBackend OpenDeviceFile(DeviceFile file, DiskAccess access) => Guard(() =>
    {
        RawFileOptions options = new() { ReadOnly = !file.Writable, Cache = DiskCacheMode.Buffered, VmOf = access.VmOf };
        return Open(file.Path, options, access.Storage);
    });

    /// <summary>What a worker is handed of it, as disk number <paramref name="index"/>.</summary>
    internal IEnumerable<(string Name, FileDescriptorHandle Descriptor)> Descriptors(int index)
    {
        if (_socket is { } socket)
        {
            yield return (ResourceNames.Disk(index), socket);
        }

        for (int layer = 0; layer < _files.Images.Count; layer++)
        {
            RawFileBackend file = _files.Images[layer].File;
            yield return (ResourceNames.Disk(index, layer), file.Buffered);
            if (file.Direct is { } direct)
            {
                yield return (ResourceNames.DirectDisk(index, layer), direct);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _files.Dispose();
        _socket?.Dispose();
    }

    private static FileDescriptorHandle Connect(string name, NbdSpec nbd, StorageFolders storage)
    {
        if (storage.Problem(nbd) is { } problem)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"disk {name}: {problem}") { Path = name };
        }

        using CancellationTokenSource patience = new(StorageDials.Patience);
        try
        {
            return StorageDials.DialerOf(nbd).ConnectAsync(patience.Token).GetAwaiter().GetResult();
        }
        catch (Exception cause) when (cause is IOException or OperationCanceledException)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {name}: {cause.Message}", cause) { Path = name };
        }
    }

    private static FileDescriptorHandle Start(DiskSpec disk, RbdSpec rbd, DiskAccess access)
    {
        if (access.Storage.Problem(rbd) is { } problem)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"disk {disk.Path}: {problem}") { Path = disk.Path };
        }

        if (access.Rbd is not { } processes || access.VmId.Length == 0)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {disk.Path} is of a Ceph cluster, and no file of this host")
            {
                Path = disk.Path,
            };
        }

        try
        {
            return processes.HelperOf(access.VmId, disk).Open();
        }
        catch (IOException cause)
        {
            string why = cause.Message.StartsWith("disk ", StringComparison.Ordinal) ? cause.Message : $"disk {disk.Path}: {cause.Message}";
            throw new BlockException(BlockErrorKind.Io, why, cause) { Path = disk.Path };
        }
    }

    private static RawFileBackend Open(string path, RawFileOptions options, StorageFolders storage) =>
        RawFileBackend.Open(path, options, storage.Open(path, !options.ReadOnly));

    // What an image says of the one below it is a guest's word, perhaps: the rule is the same as for what a spec names.
    private static FileDescriptorHandle OpenImage(StorageFolders storage, string path, bool writable)
    {
        try
        {
            return storage.Open(path, writable);
        }
        catch (StorageException cause)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, "disk " + cause.Message, cause) { Path = path };
        }
    }

    private static T Guard<T>(Func<T> open)
    {
        try
        {
            return open();
        }
        catch (StorageException cause)
        {
            throw new WorkerException(ControlCodes.DiskOpenFailed, "disk " + cause.Message, cause);
        }
        catch (BlockException cause)
        {
            throw new WorkerException(cause.Kind == BlockErrorKind.InUse ? "disk-in-use" : "disk-open-failed", cause.Message, cause);
        }
    }
}
