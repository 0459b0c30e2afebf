using System.Globalization;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>A file without a name on a disk: it is gone with its last descriptor, whatever dies.</summary>
public static class SwapFile
{
    /// <summary>
    /// Makes one, read and written past the host's page cache (O_DIRECT) where the file system has that.
    /// </summary>
    /// <param name="folder">Where it takes its room.</param>
    /// <exception cref="KernelException">The folder cannot be written, or is none.</exception>
    public static FileDescriptorHandle Create(string folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        int fd = Make(folder, direct: true);
        if (fd == -Errno.EINVAL)
        {
            fd = Make(folder, direct: false);
        }

        return fd < 0 ? throw new KernelException($"make a swap file in {folder}", -fd) : new FileDescriptorHandle(fd);
    }

    private static int Make(string folder, bool direct)
    {
        int fd = FileCalls.CreateUnnamed(folder, direct);
        if (fd is not (-Errno.EOPNOTSUPP or -Errno.EISDIR))
        {
            return fd;
        }

        // A file system without O_TMPFILE (NFS, say): the name lives for a moment.
        string name = string.Create(
            CultureInfo.InvariantCulture, $"{folder}/.vmm-swap-{Environment.ProcessId}-{Environment.TickCount64:x}");
        fd = FileCalls.CreateNew(name, direct);
        if (fd >= 0)
        {
            File.Delete(name);
        }

        return fd;
    }
}
