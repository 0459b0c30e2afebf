using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// The first bytes of a file, mapped shared and writable. Unlike a descriptor it cannot make the file longer: who keeps only the mapping is
/// held to the size that the file was given.
/// </summary>
public sealed class SharedFileMapping : SafeHandleMinusOneIsInvalid
{
    /// <summary>Maps a file; the descriptor may be closed afterwards.</summary>
    /// <param name="file">The file, at least <paramref name="length"/> bytes long.</param>
    /// <param name="length">Bytes, a multiple of 4096.</param>
    /// <param name="writable">The file is open for writing, and the mapping changes it.</param>
    /// <param name="grows">
    /// The file may be shorter, and grow later. Only addresses are taken for what it has not; a touch behind its last page ends the process
    /// (SIGBUS), so whoever touches knows how long the file is.
    /// </param>
    /// <exception cref="KernelException">mmap(2) failed.</exception>
    public SharedFileMapping(FileDescriptorHandle file, ulong length, bool writable = true, bool grows = false) : base(ownsHandle: true)
    {
        using (DescriptorLease fd = new(file))
        {
            KernelException.ThrowIfError(FileCalls.Status(fd.Number, out FileStatus status), "statx");
            if (!grows && status.Size < length)
            {
                throw new KernelException($"mmap of {length} bytes of a file of {status.Size}", Errno.EINVAL);
            }
        }

        KernelException.ThrowIfError(MemoryCalls.MapGuest(file, length, 0, out nint address, writable), "mmap of a file");
        Length = length;
        SetHandle(address);
    }

    /// <summary>Bytes.</summary>
    public ulong Length { get; }

    /// <summary>Where it begins in this process; valid until disposed.</summary>
    public nint Address => handle;

    /// <summary>The bytes, of a mapping below 2 GiB; valid until disposed. The file must not be cut meanwhile.</summary>
    public unsafe Span<byte> Bytes
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return new Span<byte>((void*)handle, checked((int)Length));
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => MemoryCalls.Unmap(handle, Length) == 0;
}
