using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/terminal.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_terminal_state_size")]
    internal static partial int TerminalStateSize();

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_is_tty")]
    internal static partial int TerminalIsTty(int fd);

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_raw")]
    internal static partial int TerminalRaw(int fd, Span<byte> saved, int size);

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_restore")]
    internal static partial int TerminalRestore(int fd, ReadOnlySpan<byte> saved, int size);

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_read")]
    internal static partial int TerminalRead(int fd, FileDescriptorHandle stop, Span<byte> buffer, int length);

    [LibraryImport(Shim, EntryPoint = "vmm_terminal_write")]
    internal static partial int TerminalWrite(int fd, ReadOnlySpan<byte> buffer, int length);
}
