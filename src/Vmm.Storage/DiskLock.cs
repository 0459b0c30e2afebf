using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// The locks of a disk's file: many readers, or one writer. They are those of open files (fcntl(2), F_OFD_SETLK), on bytes that QEMU looks
/// at, too (block/file-posix.c, since QEMU 2.10): byte 100+p is locked, shared, by who uses a file with permission p, 200+p by who wants
/// nobody else to; permission 0 is to read, 1 to write, 3 to resize.
/// <list type="bullet">
/// <item>A writer has all bytes alone. With a second open file for O_DIRECT, that one has those from 100 on: when a process is killed, its
/// open files go when the last of their own requests ends, so each keeps others away until then.</item>
/// <item>A reader shares the bytes up to "reads", and those of "nobody writes" and "nobody resizes": writers of either program are kept
/// away, readers are not. A reader of an earlier release shares all bytes.</item>
/// </list>
/// </summary>
internal static class DiskLock
{
    private const long Uses = 100, Denies = 200, ToWrite = 1, ToResize = 3;
    private const int Tries = 10, PauseMilliseconds = 10;

    /// <summary>
    /// Locks a file; false when somebody else's lock excludes this. A program that is being started has the open files of its parent until
    /// it runs (fork(2), execve(2)), and so their locks: one that was just given up may be there for some milliseconds more.
    /// </summary>
    /// <exception cref="KernelException">The file system has no locks.</exception>
    internal static bool TryTake(FileDescriptorHandle file, bool exclusive) => Try(() => TryOnce(file, exclusive));

    /// <summary>Gives an open file of O_DIRECT its part of a writer's lock; false when somebody came between.</summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    internal static bool TryShare(FileDescriptorHandle writer, FileDescriptorHandle direct)
    {
        BlockFile.Unlock(writer, Uses, 0);
        return BlockFile.TryLock(direct, exclusive: true, Uses);
    }

    /// <summary>Makes a reader's lock of a writer's, in an order that lets no writer in between.</summary>
    /// <exception cref="KernelException">The kernel could not: what it has excludes at least as much as a reader's.</exception>
    internal static void ToReader(FileDescriptorHandle file, FileDescriptorHandle? direct)
    {
        _ = direct is null || BlockFile.TryLock(direct, exclusive: false, Uses); // shared, so that the other open file gets its part
        _ = BlockFile.TryLock(file, exclusive: false, 0, Uses + 1);
        _ = BlockFile.TryLock(file, exclusive: false, Denies + ToWrite, 1);
        _ = BlockFile.TryLock(file, exclusive: false, Denies + ToResize, 1);
        if (direct is not null)
        {
            BlockFile.Unlock(direct, Uses, 0);
            return;
        }

        BlockFile.Unlock(file, Uses + 1, Denies + ToWrite - Uses - 1);
        BlockFile.Unlock(file, Denies + ToWrite + 1, ToResize - ToWrite - 1);
        BlockFile.Unlock(file, Denies + ToResize + 1, 0);
    }

    /// <summary>Makes a writer's lock of a reader's; false when somebody else has one, and the reader's stays.</summary>
    /// <exception cref="KernelException">The kernel could not.</exception>
    internal static bool TryToWriter(FileDescriptorHandle file, FileDescriptorHandle? direct)
    {
        if (!Try(() => BlockFile.TryLock(file, exclusive: true)))
        {
            return false;
        }

        if (direct is null || TryShare(file, direct))
        {
            return true;
        }

        ToReader(file, direct: null); // somebody who reads came between; nobody could who writes: the first bytes were never given up
        return false;
    }

    private static bool Try(Func<bool> lockOnce)
    {
        for (int tries = 1; !lockOnce(); tries++)
        {
            if (tries == Tries)
            {
                return false;
            }

            Thread.Sleep(PauseMilliseconds);
        }

        return true;
    }

    private static bool TryOnce(FileDescriptorHandle file, bool exclusive) => exclusive
        ? BlockFile.TryLock(file, exclusive: true)
        : BlockFile.TryLock(file, exclusive: false, 0, Uses + 1)
            && TryDeny(file, ToWrite)
            && TryDeny(file, ToResize);

    // A lock that begins before those bytes is an earlier release's, of a reader: a writer's would have excluded us.
    private static bool TryDeny(FileDescriptorHandle file, long permission) =>
        BlockFile.TryLock(file, exclusive: false, Denies + permission, 1)
            && (BlockFile.FindLock(file, Uses + permission, 1) is not { } start || start < Uses);
}
