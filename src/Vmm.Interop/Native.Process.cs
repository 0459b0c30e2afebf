using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/process.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_spawn", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint Spawn(string path, string?[] argv, string?[] envp, ReadOnlySpan<int> fds, int count, uint flags, out int pid, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_pidfd_open")]
    internal static partial nint PidFdOpen(int pid, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_pidfd_signal")]
    internal static partial int PidFdSignal(FileDescriptorHandle pidfd, int signal);

    [LibraryImport(Shim, EntryPoint = "vmm_pidfd_wait")]
    internal static partial int PidFdWait(FileDescriptorHandle pidfd, int timeout, out int code, out int status);

    [LibraryImport(Shim, EntryPoint = "vmm_process_harden")]
    internal static partial int ProcessHarden();

    [LibraryImport(Shim, EntryPoint = "vmm_process_become")]
    internal static partial int ProcessBecome(uint user);

    [LibraryImport(Shim, EntryPoint = "vmm_process_empty_root")]
    internal static partial int ProcessEmptyRoot();
}
