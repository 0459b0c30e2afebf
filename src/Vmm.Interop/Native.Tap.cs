using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/tap.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_tap_read")]
    internal static partial int TapRead(FileDescriptorHandle tap, Span<TapFrame> frames, int count);

    [LibraryImport(Shim, EntryPoint = "vmm_tap_write")]
    internal static partial int TapWrite(FileDescriptorHandle tap, Span<TapFrame> frames, int count);
}
