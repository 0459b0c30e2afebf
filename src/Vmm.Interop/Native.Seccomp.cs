using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/seccomp.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_create")]
    internal static partial nint SeccompCreate(uint defaultAction, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_add", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int SeccompAdd(nint builder, string call, uint action, ReadOnlySpan<SyscallTest> tests, uint count);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_compile")]
    internal static partial nint SeccompCompile(nint builder, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_discard")]
    internal static partial void SeccompDiscard(nint builder);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_load")]
    internal static partial int SeccompLoad(SeccompFilter program, int wholeProcess, int logged);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_length")]
    internal static partial int SeccompLength(SeccompFilter program);

    [LibraryImport(Shim, EntryPoint = "vmm_seccomp_free")]
    internal static partial int SeccompFree(nint program);
}
