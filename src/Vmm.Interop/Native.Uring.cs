using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/uring.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_uring_create")]
    internal static partial nint UringCreate(uint entries, uint completions, uint groups, out uint flags, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_destroy")]
    internal static partial int UringDestroy(nint ring);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_readv")]
    internal static partial int UringReadv(IoUring ring, int fd, nint iovecs, uint count, ulong offset, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_writev")]
    internal static partial int UringWritev(IoUring ring, int fd, nint iovecs, uint count, ulong offset, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_fdatasync")]
    internal static partial int UringFdatasync(IoUring ring, int fd, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_fallocate")]
    internal static partial int UringFallocate(IoUring ring, int fd, int mode, ulong offset, ulong length, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_poll_events")]
    internal static partial int UringPollEvents(IoUring ring, int fd, uint events, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_poll_remove")]
    internal static partial int UringPollRemove(IoUring ring, ulong pollTag, ulong tag);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_submit")]
    internal static partial int UringSubmit(IoUring ring);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_submit_and_wait")]
    internal static partial int UringSubmitAndWait(IoUring ring, long nanoseconds);

    [LibraryImport(Shim, EntryPoint = "vmm_uring_reap")]
    internal static partial int UringReap(IoUring ring, Span<IoCompletion> completions, int max);
}
