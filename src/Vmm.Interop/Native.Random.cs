using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/random.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_random")]
    internal static partial int Random(Span<byte> buffer, ulong length);
}
