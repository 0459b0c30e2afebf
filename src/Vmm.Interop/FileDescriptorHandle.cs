using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>Owner of one kernel file descriptor; the base of every typed handle (KVM, memfd, eventfd, …).</summary>
public class FileDescriptorHandle : SafeHandleMinusOneIsInvalid
{
    /// <summary>An invalid handle, for the marshaller.</summary>
    public FileDescriptorHandle() : base(ownsHandle: true) { }

    /// <summary>Takes ownership of <paramref name="fd"/>.</summary>
    public FileDescriptorHandle(nint fd) : base(ownsHandle: true) => SetHandle(fd);

    /// <summary>The raw descriptor number; valid only while this handle is kept alive.</summary>
    public int Number => (int)handle;

    /// <summary>Gives the descriptor up: the caller has to close it.</summary>
    public nint Detach()
    {
        nint fd = handle;
        SetHandleAsInvalid();
        return fd;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Tmds.Linux.LibC.close((int)handle) == 0;
}
