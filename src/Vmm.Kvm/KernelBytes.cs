using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Kvm;

/// <summary>Structs of the kernel as bytes of a saved state, whose layout is the ABI of the processor.</summary>
internal static class KernelBytes
{
    /// <summary>A copy of its bytes.</summary>
    internal static byte[] Of<T>(T value) where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(ref value)).ToArray();

    /// <summary>The struct that bytes are.</summary>
    /// <exception cref="InvalidDataException">They are more or less.</exception>
    internal static T Parse<T>(byte[] bytes, string part) where T : unmanaged =>
        bytes.Length == Unsafe.SizeOf<T>()
            ? MemoryMarshal.Read<T>(bytes)
            : throw new InvalidDataException($"{part} has {bytes.Length} bytes, not {Unsafe.SizeOf<T>()}.");
}
