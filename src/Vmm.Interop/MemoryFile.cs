using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// A file without a name in memory, memfd_create(2): for handing another process what it may not open by itself. Whoever has the descriptor
/// can read it by the path <c>/proc/self/fd/NUMBER</c>, also as another user.
/// </summary>
public static class MemoryFile
{
    /// <summary>Makes one with a content.</summary>
    /// <param name="name">Shown in /proc/PID/fd after <c>/memfd:</c>.</param>
    /// <param name="content">Its bytes.</param>
    /// <exception cref="KernelException">Out of memory or descriptors.</exception>
    public static FileDescriptorHandle Create(string name, ReadOnlySpan<byte> content)
    {
        int fd = MemoryCalls.Create(name, (ulong)content.Length, hugeShift: 0);
        FileDescriptorHandle file = fd < 0 ? throw new KernelException($"memfd_create {name}", -fd) : new FileDescriptorHandle(fd);
        using SafeFileHandle same = new(fd, ownsHandle: false);
        RandomAccess.Write(same, content, 0);
        return file;
    }
}
