using System.Runtime.InteropServices;
using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// A userfaultfd(2): page faults of registered ranges of this process, also those that the kernel makes for it (KVM, direct I/O). Any
/// thread. Ranges are whole pages of 4 KiB of a shared mapping of a memfd.
/// </summary>
public sealed class Userfault : FileDescriptorHandle
{
    private const int PageBytes = 4096, ProtectedBit = 57; // Documentation/admin-guide/mm/pagemap.rst: the pte is uffd-wp write-protected
    private FileDescriptorHandle? _pagemap;

    private Userfault(nint fd) : base(fd)
    {
    }

    /// <summary>
    /// It can map pages write-protected, and tells which were written since: Linux 6.7, and /proc when it was opened.
    /// </summary>
    public bool Protects => _pagemap is not null;

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

        int pagemap = answer > 0 ? FileCalls.Open("/proc/self/pagemap", LibC.O_RDONLY) : -1;
        faults._pagemap = pagemap < 0 ? null : new FileDescriptorHandle(pagemap);
        return faults;
    }

    /// <summary>From now on faults of the range come here.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void Register(nint address, ulong length) =>
        KernelException.ThrowIfError(
            Native.UffdRegister(this, (ulong)address, length, Protects ? 1 : 0), $"UFFDIO_REGISTER of {length} bytes");

    /// <summary>Ends <see cref="Register"/>; who waits tries again.</summary>
    public void Unregister(nint address, ulong length) => _ = Native.UffdUnregister(this, (ulong)address, length);

    /// <summary>Lets who waits for the range try again.</summary>
    public void Wake(nint address, ulong length) =>
        KernelException.ThrowIfError(Native.UffdWake(this, (ulong)address, length), "UFFDIO_WAKE");

    /// <summary>Maps pages that are in memory and wakes; one that is mapped already is woken.</summary>
    /// <param name="address">First byte.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="protect">Notice the first write: only when it <see cref="Protects"/>.</param>
    /// <returns>0, or the errno: EFAULT when a page is not in memory.</returns>
    public int Continue(nint address, ulong length, bool protect = false) =>
        -Native.UffdContinue(this, (ulong)address, length, protect ? 1 : 0);

    /// <summary>Fills pages that are not in memory, maps them and wakes.</summary>
    /// <param name="address">First byte.</param>
    /// <param name="source">What they hold.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="protect">As for <see cref="Continue"/>.</param>
    /// <returns>0, or the errno: EEXIST when a page is in memory.</returns>
    public int Copy(nint address, nint source, ulong length, bool protect = false) =>
        -Native.UffdCopy(this, (ulong)address, (ulong)source, length, protect ? 1 : 0);

    /// <summary>
    /// Which of up to 32 pages were written since they were mapped write-protected, or never were mapped so: a bit each. Also for pages
    /// that were unmapped since.
    /// </summary>
    /// <exception cref="KernelException">The kernel does not say.</exception>
    public uint Written(nint address, int pages)
    {
        Span<ulong> entries = stackalloc ulong[pages];
        long answer = FileCalls.ReadAt(_pagemap!, MemoryMarshal.AsBytes(entries), (ulong)address / PageBytes * sizeof(ulong));
        if (answer != pages * sizeof(ulong))
        {
            throw new KernelException("pread /proc/self/pagemap", answer < 0 ? (int)-answer : Errno.EIO);
        }

        uint written = 0;
        for (int i = 0; i < pages; i++)
        {
            written |= (entries[i] & (1UL << ProtectedBit)) == 0 ? 1u << i : 0;
        }

        return written;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _pagemap?.Dispose();
        base.Dispose(disposing);
    }

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
