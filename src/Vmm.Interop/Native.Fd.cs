using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/fd.c.</summary>
internal static partial class Native
{
    // The whole file name: the runtime tries other spellings of a shorter one first, each a search of its own.
    internal const string Shim = "libvmmshim.so";

    [LibraryImport(Shim, EntryPoint = "vmm_close")]
    internal static partial int Close(nint fd);

    [LibraryImport(Shim, EntryPoint = "vmm_folder_sync", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int FolderSync(string path);

    [LibraryImport(Shim, EntryPoint = "vmm_eventfd")]
    internal static partial nint EventFd(uint initial, int nonblocking, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_eventfd_write")]
    internal static partial int EventFdWrite(FileDescriptorHandle fd, ulong value);

    [LibraryImport(Shim, EntryPoint = "vmm_eventfd_read")]
    internal static partial int EventFdRead(FileDescriptorHandle fd, out ulong value);

    [LibraryImport(Shim, EntryPoint = "vmm_timerfd")]
    internal static partial nint TimerFd(out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_timerfd_set")]
    internal static partial int TimerFdSet(FileDescriptorHandle fd, uint milliseconds);
}
