using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>Opens files and block devices as disks, and says why one cannot be.</summary>
internal static class RawFileOpening
{
    /// <summary>Opens a file or device with this process's rights.</summary>
    /// <exception cref="BlockException">It is missing, forbidden, or neither a file nor a block device.</exception>
    internal static FileDescriptorHandle OpenFile(string path, bool writable)
    {
        try
        {
            return BlockFile.Open(path, writable, direct: false);
        }
        catch (KernelException error)
        {
            (BlockErrorKind kind, string why) = error.Errno switch
            {
                Errno.ENOENT => (BlockErrorKind.NotFound, "does not exist"),
                Errno.EACCES or Errno.EPERM =>
                    (BlockErrorKind.AccessDenied, writable ? "may not be written by this user" : "may not be read by this user"),
                Errno.EROFS => (BlockErrorKind.AccessDenied, "is on a read-only file system"),
                Errno.EISDIR => (BlockErrorKind.NotADisk, "is a directory"),
                Errno.ENOTBLK => (BlockErrorKind.NotADisk, "is neither a file nor a block device"),
                _ => (BlockErrorKind.Io, error.Message),
            };
            throw new BlockException(kind, $"disk {path} {why}", error) { Path = path };
        }
    }

    internal static BlockFileInfo Examine(string path, RawFileOptions options, FileDescriptorHandle file)
    {
        BlockFileInfo info = BlockFile.Inspect(file);
        if (info.Kind == BlockFileKind.Other)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {path} is neither a file nor a block device") { Path = path };
        }

        if (!options.IsImage && (info.Size == 0 || info.Size % 512 != 0 || info.Size > long.MaxValue))
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

    internal static BlockException InUse(string path, RawFileOptions options, FileDescriptorHandle file)
    {
        BlockFile.Unlock(file, 0, 0); // what it has of the lock: it is about the others
        string holders = LockHolders.Describe(file, options.VmOf);
        return new BlockException(BlockErrorKind.InUse, options.ReadOnly
            ? $"disk {path} is being written by {holders}"
            : $"disk {path} is in use by {holders}; open it read-only in all of them, or stop the other one")
        {
            Path = path,
        };
    }

    internal static bool TakeLock(string path, Func<bool> take)
    {
        try
        {
            return take();
        }
        catch (KernelException error)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {path} cannot be locked: {error.Message}", error) { Path = path };
        }
    }

    // Opened through the descriptor, so that both are the same file whatever happens to the name.
    internal static FileDescriptorHandle? TryOpenDirect(RawFileOptions options, FileDescriptorHandle buffered, ref BlockFileInfo info)
    {
        FileDescriptorHandle? direct = null;
        try
        {
            direct = BlockFile.Open($"/proc/self/fd/{buffered.Number}", !options.ReadOnly, direct: true);
            info = DirectInfo(direct);
            if (Suits(info, options.IsImage))
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
    // An image's file may grow by the rest of its last block.
    internal static bool Suits(in BlockFileInfo info, bool isImage) => info.DirectOffsetAlign <= BounceBuffers.BufferBytes / 2
        && BounceBuffers.BufferBytes % Math.Max(info.DirectOffsetAlign, 1) == 0
        && (isImage || info.Size % Math.Max(info.DirectOffsetAlign, 1) == 0);

    // A file system that does not tell its alignment: a page satisfies every device there is.
    internal static BlockFileInfo DirectInfo(FileDescriptorHandle direct)
    {
        BlockFileInfo own = BlockFile.Inspect(direct);
        return own.DirectOffsetAlign != 0 ? own : own with { DirectMemoryAlign = 4096, DirectOffsetAlign = 4096 };
    }
}
