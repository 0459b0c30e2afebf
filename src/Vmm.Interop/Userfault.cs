using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// A userfaultfd(2): page faults of registered ranges of this process, also those that the kernel makes for it (KVM, direct I/O). Any
/// thread. Ranges are whole pages of 4 KiB of a shared mapping of a memfd.
/// </summary>
public sealed class Userfault : FileDescriptorHandle
{
    private Userfault(nint fd) : base(fd)
    {
    }

    /// <summary>Opens one for this process.</summary>
    /// <param name="device"><see cref="UserfaultDevice"/>.</param>
    /// <exception cref="KernelException">
    /// The kernel refused. EINVAL: it cannot page shared memory (minor faults; Linux 5.14, CONFIG_USERFAULTFD on x86-64 or arm64).
    /// </exception>
    public static Userfault Open(FileDescriptorHandle device)
    {
        ArgumentNullException.ThrowIfNull(device);
        Userfault faults = new(KernelException.ThrowIfError(Native.UffdOpen(device), "USERFAULTFD_IOC_NEW on " + UserfaultDevice.Path));
        int answer = Native.UffdBegin(faults);
        if (answer < 0)
        {
            faults.Dispose();
            throw new KernelException("UFFDIO_API with minor faults of shared memory", -answer);
        }

        return faults;
    }

    /// <summary>From now on faults of the range come here.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void Register(nint address, ulong length) =>
        KernelException.ThrowIfError(Native.UffdRegister(this, (ulong)address, length), $"UFFDIO_REGISTER of {length} bytes");

    /// <summary>Ends <see cref="Register"/>; who waits tries again.</summary>
    public void Unregister(nint address, ulong length) => _ = Native.UffdUnregister(this, (ulong)address, length);

    /// <summary>Lets who waits for the range try again.</summary>
    public void Wake(nint address, ulong length) =>
        KernelException.ThrowIfError(Native.UffdWake(this, (ulong)address, length), "UFFDIO_WAKE");

    /// <summary>Maps pages that are in memory and wakes; one that is mapped already is woken.</summary>
    /// <returns>0, or the errno: EFAULT when a page is not in memory.</returns>
    public int Continue(nint address, ulong length) => -Native.UffdContinue(this, (ulong)address, length);

    /// <summary>Fills pages that are not in memory, maps them and wakes.</summary>
    /// <returns>0, or the errno: EEXIST when a page is in memory.</returns>
    public int Copy(nint address, nint source, ulong length) => -Native.UffdCopy(this, (ulong)address, (ulong)source, length);

    /// <summary>The same with zeros.</summary>
    /// <returns>As <see cref="Copy"/>.</returns>
    public int Zero(nint address, ulong length) => -Native.UffdZero(this, (ulong)address, length);

    /// <summary>
    /// Takes pages of a shared mapping from who accesses it, MADV_DONTNEED: they stay in memory, and the next access is a minor fault.
    /// </summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static void Unmap(nint address, ulong length) =>
        KernelException.ThrowIfError(MemoryCalls.Forget(address, length), "MADV_DONTNEED");

    /// <summary>Copies bytes that may have to be paged in first; the thread can be stopped for a collection meanwhile.</summary>
    public static void CopyBytes(nint to, nint from, ulong length) => Native.PagerCopy(to, from, length);
}
