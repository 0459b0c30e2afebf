using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/vhost.c.</summary>
internal static unsafe partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_vhost_open")]
    internal static partial nint VhostOpen(out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_own")]
    internal static partial int VhostOwn(FileDescriptorHandle vhost);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_features")]
    internal static partial int VhostFeatures(FileDescriptorHandle vhost, out ulong features);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_set_features")]
    internal static partial int VhostSetFeatures(FileDescriptorHandle vhost, ulong features);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_memory")]
    internal static partial int VhostMemory(FileDescriptorHandle vhost, VhostRegion* regions, uint count);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_ring")]
    internal static partial int VhostRing(FileDescriptorHandle vhost, in NativeVhostRing ring);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_backend")]
    internal static partial int VhostBackend(FileDescriptorHandle vhost, uint index, FileDescriptorHandle tap);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_backend")]
    internal static partial int VhostNoBackend(FileDescriptorHandle vhost, uint index, nint none);

    [LibraryImport(Shim, EntryPoint = "vmm_vhost_base")]
    internal static partial int VhostBase(FileDescriptorHandle vhost, uint index, out uint next);

    /// <summary>struct vmm_vhost_ring.</summary>
    internal struct NativeVhostRing
    {
        internal uint Index, Size, Next;
        internal int Kick, Call, Error;
        internal ulong Descriptors, Driver, Device;
    }
}
