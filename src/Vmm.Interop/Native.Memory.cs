using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/memory.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_memfd")]
    internal static partial nint MemFdCreate(ReadOnlySpan<byte> name, ulong size, uint hugeShift, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_reserve")]
    internal static partial nint MemoryReserve(ulong length, ulong alignment, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_map_reserved")]
    internal static partial int MemoryMapReserved(FileDescriptorHandle fd, nint address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_vacate")]
    internal static partial int MemoryVacate(nint address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_map")]
    internal static partial nint MemoryMap(FileDescriptorHandle fd, ulong length, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_unmap")]
    internal static partial int MemoryUnmap(nint address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_mbind")]
    internal static partial int Bind(nint address, ulong length, int mode, ReadOnlySpan<ulong> nodes, uint words);

    [LibraryImport(Shim, EntryPoint = "vmm_page_nodes")]
    internal static partial int PageNodes(ReadOnlySpan<nint> pages, ulong count, Span<int> status);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_discard")]
    internal static partial int MemoryDiscard(nint address, ulong length);

    [LibraryImport(Shim, EntryPoint = "vmm_pin_thread")]
    internal static partial int PinThread(int thread, ReadOnlySpan<ulong> cpus, uint words);

    [LibraryImport(Shim, EntryPoint = "vmm_thread_id")]
    internal static partial int ThreadId();

    [LibraryImport(Shim, EntryPoint = "vmm_pages_move")]
    internal static partial long PagesMove(ReadOnlySpan<nint> pages, ulong count, ReadOnlySpan<int> nodes, Span<int> status);

    [LibraryImport(Shim, EntryPoint = "vmm_memory_populate")]
    internal static partial int MemoryPopulate(nint address, ulong length);
}
