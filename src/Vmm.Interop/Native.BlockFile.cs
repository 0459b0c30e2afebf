using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/blockfile.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_block_open", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint BlockOpen(string path, int writable, int direct, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_block_info")]
    internal static partial int BlockInfo(FileDescriptorHandle fd, out BlockFileInfo info);

    [LibraryImport(Shim, EntryPoint = "vmm_block_lock")]
    internal static partial int BlockLock(FileDescriptorHandle fd, int exclusive);
}
