using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/pager.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_uffd_open")]
    internal static partial int UffdOpen(FileDescriptorHandle device);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_begin")]
    internal static partial int UffdBegin(FileDescriptorHandle faults);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_register")]
    internal static partial int UffdRegister(FileDescriptorHandle faults, ulong address, ulong length, int protects);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_unregister")]
    internal static partial int UffdUnregister(FileDescriptorHandle faults, ulong address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_wake")]
    internal static partial int UffdWake(FileDescriptorHandle faults, ulong address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_continue")]
    internal static partial int UffdContinue(FileDescriptorHandle faults, ulong address, ulong length, int protect);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_copy")]
    internal static partial int UffdCopy(FileDescriptorHandle faults, ulong address, ulong source, ulong length, int protect);

    [LibraryImport(Shim, EntryPoint = "vmm_uffd_zero")]
    internal static partial int UffdZero(FileDescriptorHandle faults, ulong address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_pager_copy")]
    internal static partial void PagerCopy(nint to, nint from, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_pager_serve")]
    internal static partial int PagerServe(nint board);
}
