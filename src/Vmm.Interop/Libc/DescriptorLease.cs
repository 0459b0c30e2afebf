using System.Runtime.InteropServices;

namespace Vmm.Interop.Libc;

/// <summary>Keeps a handle open for the length of a call, as the marshaller does for declared functions.</summary>
internal readonly ref struct DescriptorLease : IDisposable
{
    private readonly SafeHandle _handle;

    /// <exception cref="ObjectDisposedException">The handle is closed.</exception>
    internal DescriptorLease(SafeHandle handle)
    {
        bool taken = false;
        handle.DangerousAddRef(ref taken);
        _handle = handle;
        Number = (int)handle.DangerousGetHandle();
    }

    internal int Number { get; }

    /// <inheritdoc/>
    public void Dispose() => _handle.DangerousRelease();
}
