using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>
/// Memory: memfd_create(2), mmap(2), madvise(2), NUMA policy. Addresses come in an out parameter; answers are 0 (or a count), or -errno.
/// </summary>
internal static unsafe class MemoryCalls
{
    private const int MadvisePopulateWrite = 23, MpolMove = 2; // asm-generic/mman-common.h (Linux 5.14), linux/mempolicy.h
    private const uint AllowSealing = 2; // MFD_ALLOW_SEALING of linux/memfd.h
    private const int AddSeals = 1033, GetSeals = 1034, SealSeal = 1, SealShrink = 2, SealGrow = 4; // linux/fcntl.h

    /// <summary>Whether a file is a memfd whose length is fixed for good.</summary>
    internal static bool IsSealed(FileDescriptorHandle file)
    {
        using DescriptorLease fd = new(file);
        int seals = Answer.Of(LibC.fcntl(fd.Number, GetSeals, 0));
        return seals >= 0 && (seals & (SealShrink | SealGrow)) == (SealShrink | SealGrow);
    }

    /// <summary>
    /// A memfd of that size, not mapped; the shift of huge pages is 0, 21 or 30 (MFD_HUGE_SHIFT of memfd_create(2)). It keeps its size
    /// whoever is given it: memory that is cut off under a mapping is a SIGBUS.
    /// </summary>
    internal static int Create(string name, ulong size, uint hugeShift)
    {
        uint flags = (uint)LibC.MFD_CLOEXEC | AllowSealing | (hugeShift == 0 ? 0 : (uint)LibC.MFD_HUGETLB | (hugeShift << 26));
        int fd;
        fixed (byte* text = CString.Of(name))
        {
            fd = Answer.Of(LibC.memfd_create(text, flags));
        }

        if (fd < 0)
        {
            return fd;
        }

        int answer = Answer.Of(LibC.ftruncate(fd, (long)size));
        if (answer >= 0)
        {
            answer = Answer.Of(LibC.fcntl(fd, AddSeals, SealSeal | SealShrink | SealGrow));
        }

        if (answer < 0)
        {
            _ = LibC.close(fd);
            return answer;
        }

        return fd;
    }

    /// <summary>
    /// Maps a file shared; without <paramref name="at"/> the kernel chooses where. Guest memory never belongs into a core dump of the VMM.
    /// </summary>
    internal static int MapGuest(FileDescriptorHandle file, ulong length, nint at, out nint address, bool writable = true)
    {
        using DescriptorLease fd = new(file);
        int flags = LibC.MAP_SHARED | LibC.MAP_NORESERVE | (at != 0 ? LibC.MAP_FIXED : 0);
        int answer = Map(at, length, LibC.PROT_READ | (writable ? LibC.PROT_WRITE : 0), flags, fd.Number, out address);
        if (answer == 0)
        {
            _ = LibC.madvise((void*)address, (size_t)length, LibC.MADV_DONTDUMP);
        }

        return answer;
    }

    /// <summary>Zeroed private memory.</summary>
    internal static int MapAnonymous(ulong length, out nint address) =>
        Map(0, length, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE, -1, out address);

    /// <summary>Addresses for mappings that must lie side by side: nothing is behind them yet, and nobody else gets them.</summary>
    /// <param name="length">Bytes.</param>
    /// <param name="alignment">Of the address, a power of two.</param>
    /// <param name="address">The first.</param>
    internal static int Reserve(ulong length, ulong alignment, out nint address)
    {
        int answer = Map(
            0, length + alignment, LibC.PROT_NONE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE, -1, out nint mapped);
        address = mapped;
        if (answer < 0)
        {
            return answer;
        }

        ulong first = (ulong)mapped, aligned = (first + alignment - 1) & ~(alignment - 1), end = first + length + alignment;
        if (aligned > first)
        {
            _ = LibC.munmap((void*)first, (size_t)(aligned - first));
        }

        if (aligned + length < end)
        {
            _ = LibC.munmap((void*)(aligned + length), (size_t)(end - aligned - length));
        }

        address = (nint)aligned;
        return 0;
    }

    /// <summary>Makes a range a mere reservation again.</summary>
    internal static int Vacate(nint address, ulong length) =>
        Map(address, length, LibC.PROT_NONE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE | LibC.MAP_FIXED, -1, out _);

    internal static int Unmap(nint address, ulong length) => Answer.Of(LibC.munmap((void*)address, (size_t)length));

    /// <summary>mbind(2); <paramref name="nodes"/> is a bit mask.</summary>
    internal static int Bind(nint address, ulong length, int mode, ReadOnlySpan<ulong> nodes)
    {
        fixed (ulong* mask = nodes)
        {
            return (int)Answer.Of(
                LibC.syscall(SyscallNumber.SYS_mbind, (void*)address, (size_t)length, mode, mask, (nodes.Length * 64) + 1, 0));
        }
    }

    /// <summary>Where pages lie: each status becomes the node of its page, or -errno when it has none yet.</summary>
    internal static int NodesOf(ReadOnlySpan<nint> pages, Span<int> status)
    {
        fixed (nint* first = pages)
        fixed (int* answers = status)
        {
            return (int)Answer.Of(LibC.syscall(SyscallNumber.SYS_move_pages, 0, pages.Length, first, (void*)null, answers, 0));
        }
    }

    /// <summary>
    /// Moves pages of this process to a node: those mapped by it alone. How many stayed where they were, as far as the kernel counts; ask
    /// <see cref="NodesOf"/> for the truth. -errno when it gave up: -ENOMEM also when the node is full.
    /// </summary>
    internal static long Move(ReadOnlySpan<nint> pages, ReadOnlySpan<int> nodes, Span<int> status)
    {
        fixed (nint* first = pages)
        fixed (int* targets = nodes, answers = status)
        {
            return Answer.Of(LibC.syscall(SyscallNumber.SYS_move_pages, 0, pages.Length, first, targets, answers, MpolMove));
        }
    }

    /// <summary>
    /// Brings the pages of a range into being, from where its policy says; they keep their content. -errno when that cannot be: no SIGBUS.
    /// </summary>
    internal static int Populate(nint address, ulong length) =>
        Answer.Of(LibC.madvise((void*)address, (size_t)length, MadvisePopulateWrite));

    /// <summary>
    /// Gives whole pages of a shared mapping of a memfd back to the host: the range reads as zeros and is filled again on the next touch.
    /// </summary>
    internal static int Discard(nint address, ulong length) => Answer.Of(LibC.madvise((void*)address, (size_t)length, LibC.MADV_REMOVE));

    /// <summary>Takes pages of a shared mapping out of this process's page tables: they stay in their file.</summary>
    internal static int Forget(nint address, ulong length) =>
        Answer.Of(LibC.madvise((void*)address, (size_t)length, LibC.MADV_DONTNEED));

    private static int Map(nint at, ulong length, int protection, int flags, int fd, out nint address)
    {
        address = (nint)LibC.mmap((void*)at, (size_t)length, protection, flags, fd, 0);
        return address == -1 ? -LibC.errno : 0;
    }
}
