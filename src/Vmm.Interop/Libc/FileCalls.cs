using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>The part of struct statx (statx(2)) that is used here; it is 256 bytes in all.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal struct FileStatus
{
    [FieldOffset(0)] internal uint Mask;
    [FieldOffset(4)] internal uint BlockSize;
    [FieldOffset(28)] internal ushort Mode;
    [FieldOffset(32)] internal ulong Inode;
    [FieldOffset(40)] internal ulong Size;
    [FieldOffset(48)] internal ulong Blocks;
    [FieldOffset(96)] internal long ChangedSeconds;
    [FieldOffset(104)] internal uint ChangedNanoseconds;
    [FieldOffset(112)] internal long ModifiedSeconds;
    [FieldOffset(120)] internal uint ModifiedNanoseconds;
    [FieldOffset(128)] internal uint NamedMajor;
    [FieldOffset(132)] internal uint NamedMinor;
    [FieldOffset(136)] internal uint DeviceMajor;
    [FieldOffset(140)] internal uint DeviceMinor;
    [FieldOffset(152)] internal uint DirectMemoryAlign;
    [FieldOffset(156)] internal uint DirectOffsetAlign;

    internal readonly bool IsRegular => Is(LibC.S_IFREG);

    internal readonly bool IsBlockDevice => Is(LibC.S_IFBLK);

    internal readonly bool IsDirectory => Is(LibC.S_IFDIR);

    internal readonly bool IsSocket => Is(LibC.S_IFSOCK);

    internal readonly FileIdentity Identity =>
        IsBlockDevice ? new(NamedMajor, NamedMinor, 0) : new(DeviceMajor, DeviceMinor, Inode);

    private readonly bool Is(mode_t kind) => (Mode & (ushort)LibC.S_IFMT) == (ushort)kind;
}

/// <summary>
/// Files by path and descriptor: open(2), statx(2), locks, reads and writes at an offset. Answers: 0, a descriptor or a count, or -errno.
/// </summary>
internal static unsafe class FileCalls
{
    private const uint StatxDirectAlign = 0x2000; // STATX_DIOALIGN, since Linux 6.1; an older kernel leaves the bit out of the answer
    private const int RwfNowait = 8; // linux/fs.h

    /// <summary>Whence of <see cref="Seek"/>: the next byte that has data, or that has none.</summary>
    internal const int SeekEnd = 2, SeekData = 3, SeekHole = 4; // linux/fs.h

    /// <summary>lseek(2): the offset, or -errno.</summary>
    internal static long Seek(SafeHandle file, long offset, int whence)
    {
        using DescriptorLease fd = new(file);
        long at = (long)LibC.lseek(fd.Number, offset, whence);
        return at >= 0 ? at : -LibC.errno;
    }

    internal static int Open(string path, int flags)
    {
        fixed (byte* name = CString.Of(path))
        {
            return Answer.Of(LibC.open(name, flags | LibC.O_CLOEXEC, 0));
        }
    }

    /// <summary>A file of this user alone, without a name.</summary>
    internal static int OpenUnnamed(string folder, bool direct)
    {
        fixed (byte* name = CString.Of(folder))
        {
            int flags = LibC.O_TMPFILE | LibC.O_RDWR | LibC.O_CLOEXEC | (direct ? LibC.O_DIRECT : 0);
            return Answer.Of(LibC.open(name, flags, LibC.S_IRUSR | LibC.S_IWUSR));
        }
    }

    /// <summary>The entries of a folder are on the disk when this answers 0.</summary>
    internal static int SyncFolder(string path)
    {
        int fd = Open(path, LibC.O_RDONLY | LibC.O_DIRECTORY);
        if (fd < 0)
        {
            return fd;
        }

        int answer = Answer.Of(LibC.fsync(fd));
        _ = LibC.close(fd);
        return answer;
    }

    /// <summary>Opens a regular file or block device. The kind is checked before opening: a FIFO must not block us.</summary>
    internal static int OpenDisk(string path, bool writable, bool direct)
    {
        int answer = Status(path, out FileStatus status);
        if (answer < 0)
        {
            return answer;
        }

        return status.IsRegular || status.IsBlockDevice
            ? Open(path, (writable ? LibC.O_RDWR : LibC.O_RDONLY) | (direct ? LibC.O_DIRECT : 0))
            : status.IsDirectory ? -Errno.EISDIR : -Errno.ENOTBLK;
    }

    /// <summary>What a path names, links followed.</summary>
    internal static int Status(string path, out FileStatus status)
    {
        fixed (byte* name = CString.Of(path))
        {
            return Status(LibC.AT_FDCWD, name, 0, out status);
        }
    }

    /// <summary>What an open file is. statx and not fstat: glibc makes newfstatat of that, which a confined worker may not call.</summary>
    internal static int Status(int fd, out FileStatus status)
    {
        byte none = 0;
        return Status(fd, &none, LibC.AT_EMPTY_PATH, out status);
    }

    /// <summary>An open-file-description lock on bytes of a file; -EAGAIN when another holder excludes us.</summary>
    /// <param name="file">The file.</param>
    /// <param name="kind">F_RDLCK, F_WRLCK or F_UNLCK.</param>
    /// <param name="start">First byte.</param>
    /// <param name="length">Bytes; 0 is all there are and will be.</param>
    internal static int Lock(FileDescriptorHandle file, int kind, long start, long length)
    {
        using DescriptorLease fd = new(file);
        flock range = Range(kind, start, length);
        int answer = Answer.Of(LibC.fcntl(fd.Number, LibC.F_OFD_SETLK, &range));
        return answer == -Errno.EACCES ? -Errno.EAGAIN : answer;
    }

    /// <summary>The first byte of a lock that excludes ours; -1: there is none. Or -errno below that, none of which is 1.</summary>
    /// <inheritdoc cref="Lock" path="/param"/>
    internal static long FindLock(FileDescriptorHandle file, int kind, long start, long length)
    {
        using DescriptorLease fd = new(file);
        flock range = Range(kind, start, length);
        int answer = Answer.Of(LibC.fcntl(fd.Number, LibC.F_OFD_GETLK, &range));
        return answer < 0 ? answer : range.l_type == LibC.F_UNLCK ? -1 : (long)range.l_start;
    }

    private static flock Range(int kind, long start, long length) =>
        new() { l_type = (short)kind, l_whence = (short)LibC.SEEK_SET, l_start = start, l_len = length };

    /// <summary>Bytes read at the offset, fewer only at the end of the file.</summary>
    internal static long ReadAt(FileDescriptorHandle file, Span<byte> bytes, ulong offset)
    {
        using DescriptorLease fd = new(file);
        fixed (byte* first = bytes)
        {
            int done = 0;
            while (done < bytes.Length)
            {
                long answer = Answer.Of(LibC.pread(fd.Number, first + done, bytes.Length - done, (long)offset + done));
                if (answer is < 0 and not -Errno.EINTR)
                {
                    return answer;
                }

                if (answer == 0)
                {
                    break;
                }

                done += (int)Math.Max(answer, 0);
            }

            return done;
        }
    }

    /// <summary>Bytes written at the offset, fewer only when the file takes no more.</summary>
    internal static long WriteAt(FileDescriptorHandle file, ReadOnlySpan<byte> bytes, ulong offset)
    {
        using DescriptorLease fd = new(file);
        fixed (byte* first = bytes)
        {
            int done = 0;
            while (done < bytes.Length)
            {
                long answer = Answer.Of(LibC.pwrite(fd.Number, first + done, bytes.Length - done, (long)offset + done));
                if (answer is < 0 and not -Errno.EINTR)
                {
                    return answer;
                }

                if (answer == 0)
                {
                    break;
                }

                done += (int)Math.Max(answer, 0);
            }

            return done;
        }
    }

    /// <summary>
    /// Bytes written at the offset from a vector; may be short. Blocks while the kernel holds back writers of dirty pages.
    /// </summary>
    internal static long WriteAt(FileDescriptorHandle file, nint vectors, int count, ulong offset)
    {
        int fd = file.Number; // no count for each request: who has requests keeps the file open
        IoVector* first = (IoVector*)vectors;
        long answer;
        do
        {
            answer = count == 1
                ? Answer.Of(LibC.pwrite(fd, (void*)first->Base, (size_t)first->Length, (long)offset))
                : Answer.Of(LibC.syscall(SyscallNumber.SYS_pwritev, fd, first, count, (void*)offset, 0));
        }
        while (answer == -Errno.EINTR);
        GC.KeepAlive(file);
        return answer;
    }

    /// <summary>
    /// Bytes read at the offset into a vector; may be short. With <paramref name="nowait"/> only what is there without waiting (-EAGAIN:
    /// nothing).
    /// </summary>
    internal static long ReadAt(FileDescriptorHandle file, nint vectors, int count, ulong offset, bool nowait)
    {
        int fd = file.Number; // no count for each request: who has requests keeps the file open
        IoVector* first = (IoVector*)vectors;
        long answer;
        do
        {
            answer = nowait
                ? Answer.Of(LibC.syscall(SyscallNumber.SYS_preadv2, fd, first, count, (void*)offset, 0, RwfNowait))
                : count == 1
                    ? Answer.Of(LibC.pread(fd, (void*)first->Base, (size_t)first->Length, (long)offset))
                    : Answer.Of(LibC.syscall(SyscallNumber.SYS_preadv, fd, first, count, (void*)offset, 0));
        }
        while (answer == -Errno.EINTR);
        GC.KeepAlive(file);
        return answer;
    }

    /// <summary>False: the kernel cannot be asked not to wait for this file, and io_uring hands every request to a kernel worker.</summary>
    internal static bool TakesNowait(FileDescriptorHandle file)
    {
        byte one;
        IoVector vector = new((nint)(&one), 1);
        return ReadAt(file, (nint)(&vector), 1, 0, nowait: true) != -Errno.EOPNOTSUPP;
    }

    /// <summary>fdatasync(2).</summary>
    internal static int DataSync(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        return Answer.Of(LibC.fdatasync(fd.Number));
    }

    /// <summary>fallocate(2).</summary>
    internal static int Allocate(FileDescriptorHandle file, int mode, ulong offset, ulong length)
    {
        using DescriptorLease fd = new(file);
        return Answer.Of(LibC.fallocate(fd.Number, mode, (long)offset, (long)length));
    }

    /// <summary>ftruncate(2).</summary>
    internal static int Resize(FileDescriptorHandle file, ulong length)
    {
        using DescriptorLease fd = new(file);
        return Answer.Of(LibC.ftruncate(fd.Number, (long)length));
    }

    /// <summary>fstatvfs(3); null when it fails.</summary>
    internal static ulong? FreeBytes(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        statvfs found;
        return LibC.fstatvfs(fd.Number, &found) < 0 ? null : (ulong)found.f_bavail * (ulong)found.f_frsize;
    }

    /// <summary>An ioctl with a number or a small struct.</summary>
    internal static int Ioctl(int fd, uint request, void* argument) => Answer.Of(LibC.ioctl(fd, (int)request, argument));

    private static int Status(int fd, byte* path, int flags, out FileStatus status)
    {
        FileStatus found = default;
        int answer = Answer.Of(LibC.statx(fd, path, flags, (uint)LibC.STATX_BASIC_STATS | StatxDirectAlign, (statx*)&found));
        status = found;
        return answer;
    }
}
