using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/process.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_spawn", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint Spawn(
        string path, string?[] argv, string?[] envp, ReadOnlySpan<int> fds, int count, int errors, uint flags,
        string? folder, string? at, out int pid, out int errno);
}
