using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// Files on a disk that never have a name: they go with the last descriptor, however its process ends. open(2), O_TMPFILE.
/// </summary>
public static class UnnamedFile
{
    /// <summary>Makes one for reading and writing, that nobody else may open; close-on-exec.</summary>
    /// <param name="folder">On whose file system.</param>
    /// <param name="direct">Transfers go past the page cache (O_DIRECT).</param>
    /// <exception cref="KernelException">
    /// EOPNOTSUPP or EISDIR: the file system has no such files. EINVAL: it has no O_DIRECT. ENOENT, ENOTDIR, EACCES, EROFS, ENOSPC.
    /// </exception>
    public static FileDescriptorHandle Create(string folder, bool direct)
    {
        int fd = FileCalls.OpenUnnamed(folder, direct);
        return fd < 0 ? throw new KernelException($"make an unnamed file in {folder}", -fd) : new FileDescriptorHandle(fd);
    }
}
