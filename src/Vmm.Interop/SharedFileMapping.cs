using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// The first bytes of a file, mapped shared and writable. Unlike a descriptor it cannot make the file longer: who keeps only the mapping is held to the
/// size that the file was given.
/// </summary>
public sealed class SharedFileMapping : SafeHandleMinusOneIsInvalid
{
    /// <summary>Maps a file that is open for reading and writing; the descriptor may be closed afterwards.</summary>
    /// <param name="file">The file, at least <paramref name="length"/> bytes long.</param>
    /// <param name="length">Bytes, a multiple of 4096.</param>
    /// <exception cref="KernelException">mmap(2) failed.</exception>
    public SharedFileMapping(FileDescriptorHandle file, int length) : base(ownsHandle: true)
    {
        using (DescriptorLease fd = new(file))
        {
            KernelException.ThrowIfError(FileCalls.Status(fd.Number, out FileStatus status), "statx");
            if (status.Size < (ulong)length)
            {
                throw new KernelException($"mmap of {length} bytes of a file of {status.Size}", Errno.EINVAL);
            }
        }

        KernelException.ThrowIfError(MemoryCalls.MapGuest(file, (ulong)length, 0, out nint address), "mmap of a file");
        Length = length;
        SetHandle(address);
    }

    /// <summary>Bytes.</summary>
    public int Length { get; }

    /// <summary>The bytes; valid until disposed. The file must not be cut meanwhile.</summary>
    public unsafe Span<byte> Bytes
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return new Span<byte>((void*)handle, Length);
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => MemoryCalls.Unmap(handle, (ulong)Length) == 0;
}
