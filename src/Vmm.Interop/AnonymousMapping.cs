using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>Zeroed private memory of this process, page aligned, unmapped on dispose: small guests of tests and probes.</summary>
public sealed class AnonymousMapping : SafeHandleMinusOneIsInvalid
{
    /// <summary>Maps <paramref name="length"/> bytes; pages appear when touched.</summary>
    /// <exception cref="KernelException">mmap(2) failed.</exception>
    public AnonymousMapping(ulong length) : base(ownsHandle: true)
    {
        KernelException.ThrowIfError(MemoryCalls.MapAnonymous(length, out nint at), "mmap");
        Length = length;
        SetHandle(at);
    }

    /// <summary>Length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>First byte, for a memory slot; valid until disposed.</summary>
    public nint Address => handle;

    /// <summary>The bytes from <paramref name="offset"/>; valid until disposed.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Outside the mapping.</exception>
    public unsafe Span<byte> Slice(ulong offset, int length)
    {
        ObjectDisposedException.ThrowIf(IsClosed, this);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length);
        if ((ulong)length > Length - offset)
        {
            throw new ArgumentOutOfRangeException(nameof(length), length, "Beyond the end of the mapping.");
        }

        return new Span<byte>((byte*)handle + offset, length);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => MemoryCalls.Unmap(handle, Length) == 0;
}
