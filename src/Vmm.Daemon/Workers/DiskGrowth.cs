using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Daemon.Workers;

/// <summary>
/// A disk that is to grow, or whose size is looked at: checked first, then carried out, so that what holds it in bounds can be raised in
/// between. A raw file grows here, an image where it is open. It never shrinks.
/// </summary>
public sealed class DiskGrowth : IDisposable
{
    private const ulong Step = 4096;

    private const int HeaderBytes = 64 << 10;

    private readonly FileDescriptorHandle _file;
    private readonly ulong _before;

    private DiskGrowth(FileDescriptorHandle file, DiskSpec disk, in BlockFileInfo info, ulong before, ulong bytes)
    {
        (_file, Path, _before, Bytes) = (file, disk.Path, before, bytes);
        IsImage = disk.Format != DiskFormat.Raw;
        FileBytes = info.Kind != BlockFileKind.RegularFile ? 0 : IsImage ? DiskImageChain.MostBytesOf(info.Size, bytes) : bytes;
    }

    /// <summary>The disk is an image, which who has it open makes larger.</summary>
    internal bool IsImage { get; }

    /// <summary>The size that its worker gives it; null: none, its file has its size.</summary>
    internal ulong? ByWorker => IsImage && Bytes > _before ? Bytes : null;

    /// <summary>The file or device.</summary>
    internal string Path { get; }

    /// <summary>Its size afterwards.</summary>
    public ulong Bytes { get; }

    /// <summary>The same for a regular file; 0 for a device, which does not grow by writing.</summary>
    internal ulong FileBytes { get; }

    /// <summary>What it takes of its worker's memory beyond what it had.</summary>
    internal long MemoryBytes => Bytes > _before && MemoryDisks.AreAt(Path)
        ? (long)(Bytes - _before) + (IsImage ? (long)((Bytes - _before) / 16) : 0) // its tables
        : 0;

    /// <summary>Checks a wish; nothing is changed.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="bytes">The size to grow to; null: the one it has.</param>
    /// <param name="storage">Where disks may be.</param>
    /// <exception cref="WorkerException">The disk is not there, would shrink, or is none that grows here.</exception>
    internal static DiskGrowth Plan(DiskSpec disk, ulong? bytes, StorageFolders storage)
    {
        if (disk.IsRemote)
        {
            throw new WorkerException(ControlCodes.DiskNotResizable,
                $"disk {disk.Path} is a server's: it has the size that it had when the VM started");
        }

        FileDescriptorHandle? file = null;
        try
        {
            file = storage.Open(disk.Path, writable: false);
            BlockFileInfo info = BlockFile.Inspect(file);
            ulong size = disk.Format == DiskFormat.Raw ? info.Size : ImageSize(disk, file);
            if (bytes is not { } wanted)
            {
                return new DiskGrowth(file, disk, info, size, size);
            }

            if (Refusal(disk, info, size, wanted) is { } refused)
            {
                throw refused;
            }

            if (disk.Format != DiskFormat.Raw)
            {
                return new DiskGrowth(file, disk, info, size, wanted);
            }

            file.Dispose();
            file = storage.Open(disk.Path, writable: true);
            return new DiskGrowth(file, disk, info, size, wanted);
        }
        catch (StorageException cause)
        {
            file?.Dispose();
            throw new WorkerException(ControlCodes.DiskOpenFailed, "disk " + cause.Message, cause);
        }
        catch (KernelException cause)
        {
            file?.Dispose();
            throw new WorkerException(ControlCodes.DiskOpenFailed, $"disk {disk.Path}: {cause.Message}", cause);
        }
        catch
        {
            file?.Dispose();
            throw;
        }
    }

    /// <summary>Nobody has it open: an image is not changed here, since what it says may be a guest's word.</summary>
    /// <exception cref="WorkerException">It is an image that is to grow.</exception>
    internal void RequireNoWorker()
    {
        if (ByWorker is not null)
        {
            throw new WorkerException(ControlCodes.DiskNotResizable, $"disk {Path} is an image, which vmmd does not change: "
                + "start the VM first, or run 'vmmctl disk resize' on its host");
        }
    }

    /// <summary>Makes it as long as it shall be, also in case of a power cut. What is new takes no space until it is written.</summary>
    /// <exception cref="WorkerException">The host refused.</exception>
    public void CarryOut()
    {
        if (Bytes <= _before || IsImage)
        {
            return;
        }

        int answer = BlockFile.Resize(_file, Bytes);
        answer = answer == 0 ? BlockFile.DataSync(_file) : answer;
        if (answer != 0)
        {
            KernelException cause = new($"grow {Path}", -answer);
            bool full = -answer is Errno.ENOSPC or Errno.EDQUOT or Errno.EFBIG;
            throw new WorkerException(full ? ControlCodes.NoSpace : ControlCodes.ResourceRefused,
                $"disk {Path} cannot have {Bytes} bytes on its file system: {cause.Message}", cause);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    // What the header says; the worker that has the image looks at the rest.
    private static ulong ImageSize(DiskSpec disk, FileDescriptorHandle file)
    {
        try
        {
            byte[] header = new byte[HeaderBytes];
            int has = KernelException.ThrowIfError(BlockFile.ReadAt(file, header, 0), "read an image's header");
            return Qcow2Header.Parse(header.AsSpan(0, has), disk.Path).DiskSize;
        }
        catch (BlockException cause)
        {
            throw new WorkerException(ControlCodes.DiskOpenFailed, cause.Message, cause);
        }
    }

    private static WorkerException? Refusal(DiskSpec disk, in BlockFileInfo info, ulong size, ulong bytes)
    {
        if (info.Kind != BlockFileKind.RegularFile)
        {
            return new WorkerException(ControlCodes.DiskNotResizable, disk.Format == DiskFormat.Raw
                ? $"disk {disk.Path} is a block device: make it larger on the host, then ask again without a size"
                : $"disk {disk.Path} is an image on a block device, which may have no room for a larger one: copy it into a file "
                    + "(vmmctl vm copy-disk, or disk convert), which grows");
        }

        if (disk.ReadOnly)
        {
            return new WorkerException(ControlCodes.DiskNotResizable,
                $"disk {disk.Path} is read-only for this VM: it grows where it is written, then ask again without a size");
        }

        if (bytes % Step != 0)
        {
            return new WorkerException(
                ControlCodes.DiskNotResizable, $"{bytes} bytes are no size for disk {disk.Path}: expected a multiple of {Step}");
        }

        return bytes >= size ? null : new WorkerException(ControlCodes.DiskShrinks,
            $"disk {disk.Path} has {size} bytes and does not shrink to {bytes}: what its guest keeps behind that would be lost");
    }
}
