using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>One finished request of an <see cref="IoUring"/>.</summary>
/// <param name="Tag">What the request was queued with.</param>
/// <param name="Result">Bytes moved, or a negative errno.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IoCompletion(ulong Tag, int Result)
{
#pragma warning disable CS0169, IDE0051 // Padding of struct vmm_completion.
    private readonly uint _reserved;
#pragma warning restore CS0169, IDE0051
}

/// <summary>
/// An io_uring. One thread creates it, queues, submits, reaps and disposes it (the kernel refuses others when SINGLE_ISSUER is in force).
/// Nothing here allocates. Memory named by a request stays valid until its completion was reaped.
/// </summary>
public sealed class IoUring : SafeHandleMinusOneIsInvalid
{
    /// <summary>Creates a ring that holds at least <paramref name="entries"/> requests.</summary>
    /// <exception cref="KernelException">io_uring is disabled (EPERM), missing (ENOSYS), or out of resources.</exception>
    public IoUring(int entries) : base(ownsHandle: true)
    {
        nint ring = Native.UringCreate((uint)entries, out uint flags, out int errno);
        if (ring == -1)
        {
            throw new KernelException("io_uring_setup", errno);
        }

        SetupFlags = flags;
        SetHandle(ring);
    }

    /// <summary>The IORING_SETUP_* bits that the kernel accepted.</summary>
    public uint SetupFlags { get; }

    /// <summary>Queues a vectored read at a byte offset.</summary>
    public void Read(FileDescriptorHandle file, nint iovecs, int count, ulong offset, ulong tag) =>
        Check(Native.UringReadv(this, file.Number, iovecs, (uint)count, offset, tag));

    /// <summary>Queues a vectored write at a byte offset.</summary>
    public void Write(FileDescriptorHandle file, nint iovecs, int count, ulong offset, ulong tag) =>
        Check(Native.UringWritev(this, file.Number, iovecs, (uint)count, offset, tag));

    /// <summary>Queues fdatasync(2).</summary>
    public void DataSync(FileDescriptorHandle file, ulong tag) => Check(Native.UringFdatasync(this, file.Number, tag));

    /// <summary>Queues fallocate(2).</summary>
    public void Fallocate(FileDescriptorHandle file, FallocateModes modes, ulong offset, ulong length, ulong tag) =>
        Check(Native.UringFallocate(this, file.Number, (int)modes, offset, length, tag));

    /// <summary>Queues one completion for when <paramref name="file"/> becomes readable.</summary>
    public void PollReadable(FileDescriptorHandle file, ulong tag) => Check(Native.UringPoll(this, file.Number, tag));

    /// <summary>Queues one completion for when <paramref name="file"/> has any of <paramref name="events"/>; its result is the poll(2) bits. Hang-up and error always count.</summary>
    public void Poll(SafeHandle file, PollEvents events, ulong tag) =>
        Check(Native.UringPollEvents(this, (int)file.DangerousGetHandle(), (uint)events, tag));

    /// <summary>Hands everything queued to the kernel.</summary>
    public void Submit() => Check(Native.UringSubmit(this));

    /// <summary>Submits, then sleeps until a completion is there (or a signal arrived).</summary>
    public void SubmitAndWait()
    {
        int answer = Native.UringSubmitAndWait(this);
        if (answer != -Errno.EINTR)
        {
            Check(answer);
        }
    }

    /// <summary>Takes finished requests without sleeping; the number taken.</summary>
    public int Reap(Span<IoCompletion> completions) => Native.UringReap(this, completions, completions.Length);

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Native.UringDestroy(handle) == 0;

    private static void Check(int answer)
    {
        if (answer < 0)
        {
            Throw(-answer);
        }
    }

    private static void Throw(int errno) => throw new KernelException("io_uring_enter", errno);
}

/// <summary>Events of poll(2).</summary>
[Flags]
public enum PollEvents
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>POLLIN: a read will not block.</summary>
    Readable = 1,

    /// <summary>POLLOUT: a write will not block.</summary>
    Writable = 4,

    /// <summary>POLLERR.</summary>
    Error = 8,

    /// <summary>POLLHUP: both directions are closed.</summary>
    HangUp = 16,
}

/// <summary>Modes of fallocate(2).</summary>
[Flags]
public enum FallocateModes
{
    /// <summary>Allocate and extend.</summary>
    None = 0,

    /// <summary>The file's size does not change.</summary>
    KeepSize = 1,

    /// <summary>Give the range back to the file system; it reads as zeros.</summary>
    PunchHole = 2,

    /// <summary>The range reads as zeros and stays allocated.</summary>
    ZeroRange = 0x10,
}
