using System.Runtime.InteropServices;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>What kind of object backs a disk.</summary>
public enum BlockFileKind : uint
{
    /// <summary>Neither a regular file nor a block device.</summary>
    Other = 0,

    /// <summary>A regular file.</summary>
    RegularFile = 1,

    /// <summary>A block device.</summary>
    BlockDevice = 2,
}

/// <summary>Facts about an open disk file, sizes in bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly struct BlockFileInfo
{
    /// <summary>Size of the file or device.</summary>
    public ulong Size { get; init; }

    /// <summary>File or device.</summary>
    public BlockFileKind Kind { get; init; }

    /// <summary>Smallest unit the device addresses.</summary>
    public uint LogicalBlock { get; init; }

    /// <summary>Unit the device writes without read-modify-write.</summary>
    public uint PhysicalBlock { get; init; }

    /// <summary>Alignment O_DIRECT asks of memory; 0 when unknown or unsupported.</summary>
    public uint DirectMemoryAlign { get; init; }

    /// <summary>Alignment O_DIRECT asks of offsets and lengths; 0 when unknown or unsupported.</summary>
    public uint DirectOffsetAlign { get; init; }

    /// <summary>Nonzero when a block device is write-protected.</summary>
    public uint ReadOnly { get; init; }
}

/// <summary>Opens raw files and block devices, and keeps two users from writing the same one.</summary>
public static class BlockFile
{
    /// <summary>
    /// What a thread asks for that reads and writes disks: also the calls that its ring falls back to, and what takes room from a block
    /// device.
    /// </summary>
    public static SyscallNeeds Needs { get; } = new(
        ["readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "fsync", "fdatasync", "fallocate"],
        [0x1277 /* BLKDISCARD, linux/fs.h */, 0x127f /* BLKZEROOUT */]);

    /// <summary>What <see cref="Inspect"/> asks of a block device.</summary>
    public static SyscallNeeds OpenNeeds { get; } = new([], BlockCalls.InspectRequests);

    /// <summary>Opens a regular file or block device, close-on-exec.</summary>
    /// <exception cref="KernelException">The path names something else (ENOTBLK), does not exist, or may not be opened.</exception>
    public static FileDescriptorHandle Open(string path, bool writable, bool direct)
    {
        int fd = FileCalls.OpenDisk(path, writable, direct);
        return fd < 0 ? throw new KernelException($"open {path}", -fd) : new FileDescriptorHandle(fd);
    }

    /// <summary>Size, kind and alignments.</summary>
    /// <exception cref="KernelException">The file cannot be examined.</exception>
    public static BlockFileInfo Inspect(FileDescriptorHandle file)
    {
        KernelException.ThrowIfError(BlockCalls.Inspect(file, out BlockFileInfo info), "inspect disk file");
        return info;
    }

    /// <summary>
    /// Takes an open-file-description lock on the whole file; false when another user's lock excludes it. Held until the handle closes.
    /// </summary>
    /// <exception cref="KernelException">The file system has no locks.</exception>
    public static bool TryLock(FileDescriptorHandle file, bool exclusive)
    {
        int answer = FileCalls.Lock(file, exclusive);
        return answer == 0 || (answer == -Errno.EAGAIN ? false : throw new KernelException("lock disk file", -answer));
    }

    /// <summary>
    /// Fills <paramref name="destination"/> from <paramref name="offset"/>; the answer is the bytes read, fewer only at the end of the
    /// file.
    /// </summary>
    /// <exception cref="KernelException">The file cannot be read.</exception>
    public static int ReadAt(FileDescriptorHandle file, Span<byte> destination, ulong offset)
    {
        long answer = FileCalls.ReadAt(file, destination, offset);
        return answer < 0 ? throw new KernelException("read", (int)-answer) : (int)answer;
    }

    /// <summary>
    /// Writes <paramref name="count"/> iovecs at <paramref name="vectors"/>; the answer is the bytes written, perhaps fewer than asked, or
    /// -errno.
    /// </summary>
    public static int WriteAt(FileDescriptorHandle file, nint vectors, int count, ulong offset) =>
        (int)FileCalls.WriteAt(file, vectors, count, offset);

    /// <summary>
    /// Reads into <paramref name="count"/> iovecs at <paramref name="vectors"/>; the answer is the bytes read, perhaps fewer than asked, or
    /// -errno. With <paramref name="nowait"/> only what the kernel has at hand (-EAGAIN: nothing).
    /// </summary>
    public static int ReadAt(FileDescriptorHandle file, nint vectors, int count, ulong offset, bool nowait) =>
        (int)FileCalls.ReadAt(file, vectors, count, offset, nowait);

    /// <summary>
    /// False when the kernel cannot be asked not to wait for this file (RWF_NOWAIT): io_uring then hands every request to a kernel worker.
    /// </summary>
    public static bool TakesNowait(FileDescriptorHandle file) => FileCalls.TakesNowait(file);

    /// <summary>Bytes that a file takes on its file system; 0 when that cannot be seen.</summary>
    public static ulong AllocatedBytes(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        return FileCalls.Status(fd.Number, out FileStatus status) < 0 ? 0 : status.Blocks * 512; // stx_blocks, statx(2)
    }

    /// <summary>
    /// What a path names, without opening it. The framework's own question costs a few milliseconds at the start of a program.
    /// </summary>
    public static PathKind Kind(string path) =>
        path.Contains('\0', StringComparison.Ordinal) || FileCalls.Status(path, out FileStatus status) < 0
            ? PathKind.Missing
            : status.IsDirectory ? PathKind.Directory : PathKind.File;
}

/// <summary>What a path names.</summary>
public enum PathKind
{
    /// <summary>Nothing, or nothing this user can see.</summary>
    Missing = 0,

    /// <summary>A directory.</summary>
    Directory = 1,

    /// <summary>A file of some kind.</summary>
    File = 2,
}
