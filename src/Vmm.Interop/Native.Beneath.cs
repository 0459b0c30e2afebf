using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/beneath.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_open_beneath")]
    internal static partial nint OpenBeneath(
        ReadOnlySpan<byte> folder, ReadOnlySpan<byte> path, int confined, out FileFacts found, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_reopen")]
    internal static partial nint Reopen(FileDescriptorHandle fd, int writable, int exclusive, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_file_facts")]
    internal static partial int Facts(ReadOnlySpan<byte> path, out FileFacts found);

    [LibraryImport(Shim, EntryPoint = "vmm_own_user")]
    internal static partial uint OwnUser();
}
