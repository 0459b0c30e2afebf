using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>eventfd(2), pipe(2) and getrandom(2). Answers: the result, or -errno.</summary>
internal static unsafe class EventCalls
{
    internal static int Create(bool nonblocking) => Answer.Of(LibC.eventfd(0, LibC.EFD_CLOEXEC | (nonblocking ? LibC.EFD_NONBLOCK : 0)));

    /// <summary>Adds to the counter; waits when it would overflow, unless nonblocking.</summary>
    internal static int Write(FileDescriptorHandle handle, ulong value)
    {
        using DescriptorLease fd = new(handle);
        long answer;
        do
        {
            answer = Answer.Of(LibC.write(fd.Number, &value, sizeof(ulong)));
        }
        while (answer == -Errno.EINTR);
        return (int)Math.Min(answer, 0);
    }

    /// <summary>Takes the counter: 0, or -EAGAIN when a nonblocking one is empty. Waits otherwise.</summary>
    internal static int Read(FileDescriptorHandle handle, out ulong value) => Math.Min(ReadMessage(handle, out value), 0);

    /// <summary>A pipe whose reading end waits, and whose writing end never does.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    internal static (FileDescriptorHandle Read, FileDescriptorHandle Write) Pipe()
    {
        int* ends = stackalloc int[2];
        KernelException.ThrowIfError(Answer.Of(LibC.pipe2(ends, LibC.O_CLOEXEC)), "pipe");
        (FileDescriptorHandle read, FileDescriptorHandle write) = (new(ends[0]), new(ends[1]));
        KernelException.ThrowIfError(Answer.Of(LibC.fcntl(ends[1], LibC.F_SETFL, LibC.O_NONBLOCK)), "fcntl F_SETFL of a pipe");
        return (read, write);
    }

    /// <summary>Reads one number of a pipe: 8, or 0 when nobody writes any more. Waits for it.</summary>
    internal static int ReadMessage(FileDescriptorHandle handle, out ulong value)
    {
        using DescriptorLease fd = new(handle);
        ulong taken = 0;
        long answer;
        do
        {
            answer = Answer.Of(LibC.read(fd.Number, &taken, sizeof(ulong)));
        }
        while (answer == -Errno.EINTR);
        value = taken;
        return (int)answer;
    }

    /// <summary>Fills the buffer; waits only in the first seconds of a host's life.</summary>
    internal static int Random(Span<byte> buffer)
    {
        fixed (byte* first = buffer)
        {
            long done = 0;
            while (done < buffer.Length)
            {
                long answer = Answer.Of(LibC.syscall(SyscallNumber.SYS_getrandom, first + done, buffer.Length - (int)done, 0));
                if (answer < 0 && answer != -Errno.EINTR)
                {
                    return (int)answer;
                }

                done += Math.Max(answer, 0);
            }
        }

        return 0;
    }
}
