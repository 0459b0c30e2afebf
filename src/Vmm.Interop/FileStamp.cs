using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>What changes when a regular file is written, statx(2). A file with the same stamp has not been written in between.</summary>
/// <param name="Inode">Its number on its file system.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Modified">When its content was changed last, in nanoseconds since 1970.</param>
/// <param name="Changed">When it, or what is known of it, was changed last, in nanoseconds since 1970.</param>
public readonly record struct FileStamp(ulong Inode, ulong Size, long Modified, long Changed)
{
    internal static FileStamp? Of(in FileStatus status) => !status.IsRegular ? null : new(
        status.Inode,
        status.Size,
        Nanoseconds(status.ModifiedSeconds, status.ModifiedNanoseconds),
        Nanoseconds(status.ChangedSeconds, status.ChangedNanoseconds));

    // Goes round after the year 2262, which compares as well.
    private static long Nanoseconds(long seconds, uint nanoseconds) => unchecked((seconds * 1_000_000_000) + nanoseconds);
}
