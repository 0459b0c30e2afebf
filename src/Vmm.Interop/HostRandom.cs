using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// The kernel's random numbers by getrandom(2): no library to load and no file to open, unlike the framework's generator, so it works in a
/// confined worker.
/// </summary>
public static class HostRandom
{
    /// <summary>Fills <paramref name="buffer"/>.</summary>
    /// <exception cref="KernelException">The kernel has no getrandom(2).</exception>
    public static void Fill(Span<byte> buffer) => KernelException.ThrowIfError(EventCalls.Random(buffer), "getrandom");
}
