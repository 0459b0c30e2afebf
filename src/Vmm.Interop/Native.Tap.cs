using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/tap.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_tap_open")]
    internal static partial nint TapOpen(byte[] name, int multiQueue, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_check")]
    internal static partial int TapCheck(FileDescriptorHandle tap, Span<byte> name);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_header")]
    internal static partial int TapHeader(FileDescriptorHandle tap, int bytes);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_offload")]
    internal static partial int TapOffload(FileDescriptorHandle tap, uint bits);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_attach")]
    internal static partial int TapAttach(FileDescriptorHandle tap, int attach);

    [LibraryImport(Shim, EntryPoint = "vmm_interface_mtu")]
    internal static partial int InterfaceMtu(byte[] name);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_read")]
    internal static partial int TapRead(FileDescriptorHandle tap, Span<TapFrame> frames, int count);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_write")]
    internal static partial int TapWrite(FileDescriptorHandle tap, Span<TapFrame> frames, int count);
}
