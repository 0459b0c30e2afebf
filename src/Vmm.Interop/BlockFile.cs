using System.Runtime.InteropServices;
using Tmds.Linux;
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

    /// <summary>Shortest transfer without a penalty; 0 when unknown.</summary>
    public uint MinimumIo { get; init; }

    /// <summary>Length of the best transfers; 0 when unknown.</summary>
    public uint OptimalIo { get; init; }

    /// <summary>Where the first physical block of a device begins.</summary>
    public uint AlignmentOffset { get; init; }

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

    /// <summary>What a thread asks for that reads and writes an image's tables, without a ring, and lets its file grow.</summary>
    public static SyscallNeeds ImageNeeds { get; } = new(
        ["pread64", "pwrite64", "preadv", "pwritev", "preadv2", "fdatasync", "fallocate", "ftruncate"], Needs.Ioctls);

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

    /// <summary>Which file or device it is, whatever it is called.</summary>
    /// <exception cref="KernelException">The file cannot be examined.</exception>
    public static FileIdentity Identify(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        KernelException.ThrowIfError(FileCalls.Status(fd.Number, out FileStatus status), "identify file");
        return status.Identity;
    }

    /// <summary>Which file or device a path names, links followed; null when nothing can be seen there.</summary>
    public static FileIdentity? Identify(string path) =>
        path.Contains('\0', StringComparison.Ordinal) || FileCalls.Status(path, out FileStatus status) < 0 ? null : status.Identity;

    /// <summary>
    /// Takes an open-file-description lock on bytes of the file; false when another user's lock excludes it. Held until the last descriptor
    /// of this open file closes, also in other processes.
    /// </summary>
    /// <param name="file">The file.</param>
    /// <param name="exclusive">Nobody else may have one.</param>
    /// <param name="start">First byte; there need not be any in the file.</param>
    /// <param name="length">Bytes; 0 is all from there on.</param>
    /// <exception cref="KernelException">The file system has no locks.</exception>
    public static bool TryLock(FileDescriptorHandle file, bool exclusive, long start = 0, long length = 0)
    {
        int answer = FileCalls.Lock(file, exclusive ? LibC.F_WRLCK : LibC.F_RDLCK, start, length);
        return answer == 0 || (answer == -Errno.EAGAIN ? false : throw new KernelException("lock disk file", -answer));
    }

    /// <summary>Gives a part of a lock up.</summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    public static void Unlock(FileDescriptorHandle file, long start, long length) =>
        KernelException.ThrowIfError(FileCalls.Lock(file, LibC.F_UNLCK, start, length), "unlock disk file");

    /// <summary>The first byte of a lock of somebody else on these bytes; null when there is none.</summary>
    /// <exception cref="KernelException">The file system has no locks.</exception>
    public static long? FindLock(FileDescriptorHandle file, long start, long length)
    {
        long answer = FileCalls.FindLock(file, LibC.F_WRLCK, start, length);
        return answer >= 0 ? answer : answer == -1 ? null : throw new KernelException("look for locks of disk file", (int)-answer);
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

    /// <summary>Writes all bytes at an offset, pwrite(2).</summary>
    /// <exception cref="KernelException">The file cannot be written.</exception>
    public static void WriteAt(FileDescriptorHandle file, ReadOnlySpan<byte> bytes, ulong offset)
    {
        long answer = FileCalls.WriteAt(file, bytes, offset);
        if (answer != bytes.Length)
        {
            throw new KernelException("write", answer < 0 ? (int)-answer : Errno.EIO);
        }
    }

    /// <summary>When an open file was changed last, and how large it is; null for what is no regular file, which does not tell.</summary>
    /// <exception cref="KernelException">The file cannot be examined.</exception>
    public static FileStamp? Stamp(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        KernelException.ThrowIfError(FileCalls.Status(fd.Number, out FileStatus status), "look at file");
        return FileStamp.Of(status);
    }

    /// <summary>The same of the file at a path, links followed; null also when nothing can be seen there.</summary>
    public static FileStamp? Stamp(string path) =>
        path.Contains('\0', StringComparison.Ordinal) || FileCalls.Status(path, out FileStatus status) < 0 ? null : FileStamp.Of(status);

    /// <summary>What was written is on stable storage when this answers 0; else -errno. fdatasync(2).</summary>
    public static int DataSync(FileDescriptorHandle file) => FileCalls.DataSync(file);

    /// <summary>fallocate(2): 0, or -errno.</summary>
    /// <param name="file">A file open for writing.</param>
    /// <param name="modes">What is done with the range.</param>
    /// <param name="offset">Its first byte.</param>
    /// <param name="length">Its bytes.</param>
    public static int Allocate(FileDescriptorHandle file, FallocateModes modes, ulong offset, ulong length) =>
        FileCalls.Allocate(file, (int)modes, offset, length);

    /// <summary>Makes the file that long: 0, or -errno. What is new reads as zeros. ftruncate(2).</summary>
    public static int Resize(FileDescriptorHandle file, ulong length) => FileCalls.Resize(file, length);

    /// <summary>
    /// False when the kernel cannot be asked not to wait for this file (RWF_NOWAIT): io_uring then hands every request to a kernel worker.
    /// </summary>
    public static bool TakesNowait(FileDescriptorHandle file) => FileCalls.TakesNowait(file);

    /// <summary>Bytes that this user can still write on the file system of a file; null when that cannot be seen.</summary>
    public static ulong? FreeBytes(FileDescriptorHandle file) => FileCalls.FreeBytes(file);

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
