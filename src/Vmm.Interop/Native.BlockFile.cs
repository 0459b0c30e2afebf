using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/blockfile.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_block_open")]
    internal static partial nint BlockOpen(ReadOnlySpan<byte> path, int writable, int direct, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_block_info")]
    internal static partial int BlockInfo(FileDescriptorHandle fd, out BlockFileInfo info);

    [LibraryImport(Shim, EntryPoint = "vmm_block_lock")]
    internal static partial int BlockLock(FileDescriptorHandle fd, int exclusive);

    [LibraryImport(Shim, EntryPoint = "vmm_path_kind")]
    internal static partial int PathKind(ReadOnlySpan<byte> path);

    [LibraryImport(Shim, EntryPoint = "vmm_file_write_at")]
    internal static partial long FileWriteAt(FileDescriptorHandle fd, nint vectors, int count, ulong offset);

    [LibraryImport(Shim, EntryPoint = "vmm_file_readv_at")]
    internal static partial long FileReadvAt(FileDescriptorHandle fd, nint vectors, int count, ulong offset, int nowait);

    [LibraryImport(Shim, EntryPoint = "vmm_file_takes_nowait")]
    internal static partial int FileTakesNowait(FileDescriptorHandle fd);

    [LibraryImport(Shim, EntryPoint = "vmm_file_read_at")]
    internal static partial long FileReadAt(FileDescriptorHandle fd, Span<byte> buffer, ulong length, ulong offset);
}
