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

/// <summary>Groups of operations that a ring can do; twin of native-shim/uring.c.</summary>
[Flags]
public enum RingOperations : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>Waiting for descriptors: doorbells, timers, sockets.</summary>
    Polls = 1,

    /// <summary>Reading, writing, flushing files and taking room from them.</summary>
    Files = 2,

    /// <summary>All there are.</summary>
    All = Polls | Files,
}

/// <summary>
/// An io_uring that does what native-shim/uring.c allows it and nothing else (io_uring_register(2), restrictions). One thread at a time
/// uses it. Nothing here allocates, but for many polls at once. Memory named by a request stays valid until its completion was reaped.
/// Requests that wait at the same time have different tags.
/// </summary>
public sealed class IoUring : SafeHandleMinusOneIsInvalid
{
    private const int Entries = 64, Completions = 256;
    // tags of users are numbers of slots or queues, with or without bit 63, or all ones
    private const ulong RemovalTag = ulong.MaxValue - 1;

    private ulong[] _polls = new ulong[8];
    private int _pollCount;

    /// <summary>
    /// Creates a ring. Any number of requests may be in flight: more than can be queued at once are submitted in between.
    /// </summary>
    /// <param name="operations">What it can do, for good; other requests complete with -EACCES.</param>
    /// <exception cref="IoUringUnavailableException">This host, or its container, has io_uring switched off or does not know
    /// it.</exception>
    /// <exception cref="KernelException">Out of memory or descriptors.</exception>
    public IoUring(RingOperations operations = RingOperations.All) : base(ownsHandle: true)
    {
        nint ring = Native.UringCreate(Entries, Completions, (uint)operations, out uint flags, out int errno);
        if (ring == -1)
        {
            throw errno is Errno.EPERM or Errno.ENOSYS
                ? new IoUringUnavailableException(errno)
                : new KernelException("io_uring_setup", errno);
        }

        SetupFlags = flags;
        Operations = operations;
        SetHandle(ring);
    }

    /// <summary>What it can do.</summary>
    public RingOperations Operations { get; }

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
    public void PollReadable(FileDescriptorHandle file, ulong tag) => Poll(file, PollEvents.Readable, tag);

    /// <summary>
    /// Queues one completion for when <paramref name="file"/> has any of <paramref name="events"/>; its result is the poll(2) bits. Hang-up
    /// and error always count.
    /// </summary>
    public void Poll(SafeHandle file, PollEvents events, ulong tag)
    {
        Check(Native.UringPollEvents(this, (int)file.DangerousGetHandle(), (uint)events, tag));
        Remember(tag);
    }

    /// <summary>Hands everything queued to the kernel.</summary>
    public void Submit() => Check(Native.UringSubmit(this));

    /// <summary>Submits, then sleeps until a completion is there, a signal arrived, or so much time is over; negative is for
    /// ever.</summary>
    public void SubmitAndWait(long nanoseconds = -1)
    {
        int answer = Native.UringSubmitAndWait(this, nanoseconds);
        if (answer is not (-Errno.EINTR or -Errno.ETIME))
        {
            Check(answer);
        }
    }

    /// <summary>Takes finished requests without sleeping; the number taken.</summary>
    public int Reap(Span<IoCompletion> completions)
    {
        int count = Native.UringReap(this, completions, completions.Length);
        for (int i = 0; i < count && _pollCount > 0; i++)
        {
            Forget(completions[i].Tag);
        }

        return count;
    }

    /// <summary>Calls off all polls that wait and takes their completions. Nothing else may be in flight.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void CancelPolls()
    {
        int removals = _pollCount;
        for (int i = 0; i < _pollCount; i++)
        {
            Check(Native.UringPollRemove(this, _polls[i], RemovalTag));
        }

        Span<IoCompletion> ended = stackalloc IoCompletion[16];
        while (_pollCount > 0 || removals > 0)
        {
            SubmitAndWait();
            int count;
            while ((count = Reap(ended)) > 0)
            {
                foreach (IoCompletion completion in ended[..count])
                {
                    removals -= completion.Tag == RemovalTag ? 1 : 0;
                }
            }
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Native.UringDestroy(handle) == 0;

    private void Remember(ulong poll)
    {
        if (_pollCount == _polls.Length)
        {
            Array.Resize(ref _polls, 2 * _pollCount);
        }

        _polls[_pollCount++] = poll;
    }

    private void Forget(ulong tag)
    {
        int at = _polls.AsSpan(0, _pollCount).IndexOf(tag);
        if (at >= 0)
        {
            _polls[at] = _polls[--_pollCount];
        }
    }

    private static void Check(int answer)
    {
        if (answer < 0)
        {
            Throw(-answer);
        }
    }

    private static void Throw(int errno) => throw new KernelException("io_uring_enter", errno);
}

/// <summary>There is no io_uring for this process; the message says what to do.</summary>
/// <param name="errno">What io_uring_setup(2) answered: EPERM or ENOSYS.</param>
public sealed class IoUringUnavailableException(int errno) : Exception(errno == Interop.Errno.EPERM
    ? "io_uring is switched off for this process (io_uring_setup: EPERM), and devices need it: set 'sysctl kernel.io_uring_disabled=0' on "
        + "the host"
        + " (at 1, members of the group kernel.io_uring_group may use it); in a container its seccomp profile has to allow io_uring_setup, "
        + "io_uring_enter and io_uring_register"
    : "this kernel has no io_uring (io_uring_setup: ENOSYS), and devices need it: it was built without CONFIG_IO_URING, or a container's "
        + "seccomp profile hides it")
{
    /// <summary>The error of io_uring_setup(2), see <see cref="Interop.Errno"/>.</summary>
    public int Errno { get; } = errno;
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
