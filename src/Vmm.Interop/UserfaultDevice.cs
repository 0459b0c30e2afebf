using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// The device that gives a userfaultfd(2) to who may open it, also for faults that the kernel makes (KVM, direct I/O).
/// </summary>
public static class UserfaultDevice
{
    /// <summary>Where it is, since Linux 6.1.</summary>
    public const string Path = "/dev/userfaultfd";

    /// <summary>Opens it.</summary>
    /// <exception cref="KernelException">It is not there, or may not be opened.</exception>
    public static FileDescriptorHandle Open(string path = Path)
    {
        int fd = FileCalls.Open(path, LibC.O_RDWR);
        return fd < 0 ? throw new KernelException($"open {path}", -fd) : new FileDescriptorHandle(fd);
    }
}
