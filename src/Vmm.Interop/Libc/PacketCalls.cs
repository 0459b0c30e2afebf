using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Packets that carry descriptors: sendmsg(2), recvmsg(2), SCM_RIGHTS of unix(7).</summary>
internal static unsafe class PacketCalls
{
    /// <summary>Most descriptors in one packet.</summary>
    internal const int MaxDescriptors = 128;

    // struct cmsghdr, CMSG_LEN and CMSG_SPACE of cmsg(3). Not the package's CMSG_LEN: it rounds up, and an odd number of descriptors would
    // take one more along.
    private const int HeaderLength = 16;
    private const int ControlSpace = HeaderLength + (sizeof(int) * MaxDescriptors);

    /// <summary>
    /// Sends one packet with its descriptors; waits that long (-1: for ever) for room, then -ETIMEDOUT. Never raises SIGPIPE. 0, or -errno.
    /// </summary>
    internal static int Send(FileDescriptorHandle socket, ReadOnlySpan<byte> bytes, ReadOnlySpan<int> descriptors, int timeoutMilliseconds)
    {
        if (bytes.IsEmpty || descriptors.Length > MaxDescriptors)
        {
            return -Errno.EINVAL;
        }

        using DescriptorLease fd = new(socket);
        long* words = stackalloc long[ControlSpace / sizeof(long)]; // aligned as cmsghdr wants it
        byte* control = (byte*)words;
        fixed (byte* first = bytes)
        {
            iovec part = new() { iov_base = first, iov_len = bytes.Length };
            msghdr message = new() { msg_iov = &part, msg_iovlen = 1 };
            if (!descriptors.IsEmpty)
            {
                int length = HeaderLength + (sizeof(int) * descriptors.Length);
                message.msg_control = control;
                message.msg_controllen = Aligned(length);
                *(cmsghdr*)control = new cmsghdr { cmsg_level = LibC.SOL_SOCKET, cmsg_type = LibC.SCM_RIGHTS, cmsg_len = length };
                descriptors.CopyTo(new Span<int>(control + HeaderLength, descriptors.Length));
            }

            return Send(socket, fd.Number, &message, bytes.Length, timeoutMilliseconds);
        }
    }

    /// <summary>The same with descriptors that stay open meanwhile.</summary>
    internal static int Send(
        FileDescriptorHandle socket, ReadOnlySpan<byte> bytes, ReadOnlySpan<FileDescriptorHandle> descriptors, int timeoutMilliseconds)
    {
        Span<int> numbers = stackalloc int[descriptors.Length];
        int held = 0;
        try
        {
            for (; held < numbers.Length; held++)
            {
                bool taken = false;
                descriptors[held].DangerousAddRef(ref taken);
                numbers[held] = descriptors[held].Number;
            }

            return Send(socket, bytes, numbers, timeoutMilliseconds);
        }
        finally
        {
            while (held > 0)
            {
                descriptors[--held].DangerousRelease();
            }
        }
    }

    /// <summary>
    /// Takes one packet without waiting: its length, 0 at the end of the connection, -EAGAIN when there is none. A packet or a descriptor
    /// list that does not fit is -EMSGSIZE; then, as on any error, no descriptor stays open.
    /// </summary>
    internal static int Receive(FileDescriptorHandle socket, Span<byte> bytes, Span<int> descriptors, out int count)
    {
        using DescriptorLease fd = new(socket);
        long* words = stackalloc long[ControlSpace / sizeof(long)]; // aligned as cmsghdr wants it
        byte* control = (byte*)words;
        count = 0;
        fixed (byte* first = bytes)
        {
            iovec part = new() { iov_base = first, iov_len = bytes.Length };
            msghdr message = new() { msg_iov = &part, msg_iovlen = 1, msg_control = control, msg_controllen = ControlSpace };
            long length;
            do
            {
                length = Answer.Of(LibC.recvmsg(fd.Number, &message, LibC.MSG_CMSG_CLOEXEC | LibC.MSG_DONTWAIT));
            }
            while (length == -Errno.EINTR);
            if (length < 0)
            {
                return (int)length;
            }

            bool fits = (message.msg_flags & (LibC.MSG_TRUNC | LibC.MSG_CTRUNC)) == 0;
            return Take(control, (int)message.msg_controllen, fits, descriptors, ref count) ? (int)length : -Errno.EMSGSIZE;
        }
    }

    private static int Send(FileDescriptorHandle socket, int fd, msghdr* message, int length, int timeoutMilliseconds)
    {
        while (true)
        {
            long sent = Answer.Of(LibC.sendmsg(fd, message, LibC.MSG_NOSIGNAL | LibC.MSG_DONTWAIT));
            if (sent >= 0)
            {
                return sent == length ? 0 : -Errno.EMSGSIZE;
            }

            if (sent == -Errno.EINTR)
            {
                continue;
            }

            if (sent != -Errno.EAGAIN)
            {
                return (int)sent;
            }

            int ready = WaitForRoom(socket, timeoutMilliseconds);
            if (ready < 0)
            {
                return ready;
            }
        }
    }

    /// <summary>0 when there may be room, -ETIMEDOUT when the time is over. A signal starts the wait again.</summary>
    private static int WaitForRoom(FileDescriptorHandle socket, int timeoutMilliseconds)
    {
        Span<PollEntry> room = [new PollEntry(socket, read: false, write: true)];
        long end = Environment.TickCount64 + timeoutMilliseconds;
        while (true)
        {
            long left = timeoutMilliseconds < 0 ? -1 : Math.Max(end - Environment.TickCount64, 0);
            int ready = PollCalls.Wait(room, left < 0 ? -1 : left * 1000);
            if (ready != 0)
            {
                return Math.Min(ready, 0);
            }

            if (left == 0)
            {
                return -Errno.ETIMEDOUT;
            }
        }
    }

    /// <summary>Takes the descriptors of a message; false, and all of them closed, when they do not fit.</summary>
    private static bool Take(byte* control, int length, bool fits, Span<int> descriptors, ref int count)
    {
        int at = 0;
        while (length - at >= HeaderLength)
        {
            cmsghdr* header = (cmsghdr*)(control + at);
            int end = Math.Min((int)header->cmsg_len, length - at);
            if (end < HeaderLength)
            {
                break;
            }

            if (header->cmsg_level == LibC.SOL_SOCKET && header->cmsg_type == LibC.SCM_RIGHTS)
            {
                Take(
                    new ReadOnlySpan<int>(control + at + HeaderLength, (end - HeaderLength) / sizeof(int)),
                    ref fits,
                    descriptors,
                    ref count);
            }

            at += Aligned(end);
        }

        while (!fits && count > 0)
        {
            _ = LibC.close(descriptors[--count]);
        }

        return fits;
    }

    private static void Take(ReadOnlySpan<int> carried, ref bool fits, Span<int> descriptors, ref int count)
    {
        foreach (int one in carried)
        {
            if (fits && count < descriptors.Length)
            {
                descriptors[count++] = one;
            }
            else
            {
                _ = LibC.close(one);
                fits = false;
            }
        }
    }

    private static int Aligned(int length) => (length + sizeof(long) - 1) & ~(sizeof(long) - 1);
}
