using System.Runtime.InteropServices;
using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop.Kvm;

/// <summary>
/// The KVM device or a VM: a descriptor that takes KVM requests. Answers are 0 or more, or -errno; nothing throws but <see cref="Open"/>
/// and <see cref="Create"/>.
/// </summary>
public sealed class KvmHandle : FileDescriptorHandle
{
    /// <summary>The device file of a stock host.</summary>
    public const string DefaultPath = "/dev/kvm";

    /// <summary>An invalid handle, for the marshaller.</summary>
    public KvmHandle() { }

    private KvmHandle(nint fd) : base(fd) { }

    /// <summary>Takes over a KVM device that somebody else opened.</summary>
    public KvmHandle(FileDescriptorHandle descriptor) : base(descriptor.Detach()) { }

    /// <summary>Opens the device file.</summary>
    /// <exception cref="KvmUnavailableException">Missing or forbidden; the message says which, and what to do.</exception>
    public static KvmHandle Open(string path = DefaultPath)
    {
        int fd = FileCalls.Open(path, LibC.O_RDWR);
        return fd >= 0 ? new KvmHandle(fd) : throw Unavailable(path, new KernelException($"open {path}", -fd));
    }

    private static KvmUnavailableException Unavailable(string path, KernelException cause) => cause.Errno switch
    {
        Errno.ENOENT => new KvmUnavailableException(
            KvmUnavailableReason.Missing,
            $"{path} does not exist: load the module kvm-intel or kvm-amd, or switch on virtualization in the firmware.",
            cause),
        Errno.EACCES or Errno.EPERM => new KvmUnavailableException(
            KvmUnavailableReason.NoPermission, $"{path} may not be opened by this user: join the group 'kvm' or run as root.", cause),
        Errno.ENODEV or Errno.ENXIO => new KvmUnavailableException(
            KvmUnavailableReason.Missing, $"{path} is there, but no KVM module answers behind it.", cause),
        _ => new KvmUnavailableException(KvmUnavailableReason.OpenFailed, $"{path} cannot be opened: {cause.Message}", cause),
    };

    /// <summary>A request that answers with a new descriptor (KVM_CREATE_VM).</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public unsafe KvmHandle Create(KvmRequest request, nint argument = 0)
    {
        nint fd;
        int errno;
        do
        {
            // KVM_CREATE_VM registers with the memory of the process, which a signal that is pending breaks off (mm_take_all_locks).
            fd = Native.IoctlFd(this, (ulong)request, (void*)argument, out errno);
        }
        while (fd < 0 && errno == Errno.EINTR);
        return fd < 0 ? throw new KernelException(request.ToString(), errno) : new KvmHandle(fd);
    }

    /// <summary>A request with a number as its argument.</summary>
    public unsafe int Call(KvmRequest request, nint argument = 0) => Native.Ioctl(this, (ulong)request, (void*)argument);

    /// <summary>A request with a struct the kernel reads, writes or both.</summary>
    public unsafe int Call<T>(KvmRequest request, ref T argument) where T : unmanaged
    {
        fixed (T* at = &argument)
        {
            return Native.Ioctl(this, (ulong)request, at);
        }
    }

    /// <summary>A request with a buffer of variable length: a header, then an array.</summary>
    public unsafe int Call(KvmRequest request, Span<byte> buffer)
    {
        fixed (byte* at = &MemoryMarshal.GetReference(buffer))
        {
            return Native.Ioctl(this, (ulong)request, at);
        }
    }

    /// <summary>
    /// KVM_GET_DIRTY_LOG into <paramref name="bitmap"/>, one bit a page; the caller has checked that it is long enough for the slot.
    /// </summary>
    public unsafe int GetDirtyLog(uint slot, Span<ulong> bitmap)
    {
        fixed (ulong* at = &MemoryMarshal.GetReference(bitmap))
        {
            KvmDirtyLog log = new() { Slot = slot, DirtyBitmap = (ulong)at };
            return Call(KvmRequest.KVM_GET_DIRTY_LOG, ref log);
        }
    }

    /// <summary>KVM_CLEAR_DIRTY_LOG of the pages whose bits are set.</summary>
    public unsafe int ClearDirtyLog(uint slot, ulong firstPage, uint pages, ReadOnlySpan<ulong> bitmap)
    {
        fixed (ulong* at = &MemoryMarshal.GetReference(bitmap))
        {
            KvmClearDirtyLog log = new() { Slot = slot, FirstPage = firstPage, NumPages = pages, DirtyBitmap = (ulong)at };
            return Call(KvmRequest.KVM_CLEAR_DIRTY_LOG, ref log);
        }
    }
}
