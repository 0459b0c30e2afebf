using System.Runtime.InteropServices;

namespace Vmm.Interop;

internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_terminal_guard")]
    internal static partial int TerminalGuard(int fd);

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_unguard")]
    internal static partial void TerminalUnguard();
}
