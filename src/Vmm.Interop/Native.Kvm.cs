using System.Runtime.InteropServices;
using Vmm.Interop.Kvm;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/kvm.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_ioctl")]
    internal static unsafe partial int Ioctl(FileDescriptorHandle fd, ulong request, void* argument);

    [LibraryImport(Shim, EntryPoint = "vmm_ioctl_fd")]
    internal static unsafe partial nint IoctlFd(FileDescriptorHandle fd, ulong request, void* argument, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_create")]
    internal static partial nint VcpuCreate(FileDescriptorHandle vm, ulong id, ulong mapLength, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_destroy")]
    internal static partial int VcpuDestroy(nint vcpu);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_ioctl")]
    internal static unsafe partial int VcpuIoctl(VcpuHandle vcpu, ulong request, void* argument);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_fd")]
    internal static partial nint VcpuFd(VcpuHandle vcpu);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_map_dirty_ring")]
    internal static partial nint VcpuMapDirtyRing(VcpuHandle vcpu, ulong length, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_run_page")]
    internal static partial nint VcpuRunPage(VcpuHandle vcpu);

    // May block for as long as the guest runs: no SuppressGCTransition.
    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_run")]
    internal static partial int VcpuRun(VcpuHandle vcpu);

    [LibraryImport(Shim, EntryPoint = "vmm_vcpu_kick")]
    internal static partial int VcpuKick(VcpuHandle vcpu);
}
