using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>
/// Unix sockets (unix(7)) of both kinds: making, naming, connecting, and byte streams that never block. Answers: a descriptor or count, or
/// -errno.
/// </summary>
internal static unsafe class SocketCalls
{
    private const int PathLength = 108; // struct sockaddr_un

    /// <summary>A socket, close-on-exec: packets that keep their borders, or a byte stream.</summary>
    internal static int Pair(bool packets, Span<int> fds)
    {
        fixed (int* two = fds)
        {
            return Answer.Of(LibC.socketpair(LibC.AF_UNIX, (packets ? LibC.SOCK_SEQPACKET : LibC.SOCK_STREAM) | LibC.SOCK_CLOEXEC, 0, two));
        }
    }

    /// <summary>A packet socket with a name, which does not listen yet.</summary>
    internal static int BindPackets(string path) => Make(path, LibC.SOCK_SEQPACKET, connect: false, backlog: 0);

    /// <summary>
    /// A connected packet socket. -EAGAIN when the listener's backlog is full (unix(7)): one that hangs must not make who connects wait.
    /// </summary>
    internal static int ConnectPackets(string path) => Make(path, LibC.SOCK_SEQPACKET | LibC.SOCK_NONBLOCK, connect: true, backlog: 0);

    /// <summary>A stream listener that never blocks.</summary>
    internal static int ListenStream(string path, int backlog) =>
        Make(path, LibC.SOCK_STREAM | LibC.SOCK_NONBLOCK, connect: false, Math.Max(backlog, 1));

    /// <summary>
    /// A connected stream that never blocks. -EAGAIN when the listener's backlog is full, -ECONNREFUSED when nobody listens.
    /// </summary>
    internal static int ConnectStream(string path) => Make(path, LibC.SOCK_STREAM | LibC.SOCK_NONBLOCK, connect: true, backlog: 0);

    /// <summary>
    /// The same, but the last part of the path is a socket itself and no link to one: what was looked at is what is connected to.
    /// -ECONNREFUSED otherwise.
    /// </summary>
    internal static int ConnectStreamNoFollow(string path)
    {
        int at;
        fixed (byte* name = CString.Of(path))
        {
            at = Answer.Of(LibC.open(name, LibC.O_PATH | LibC.O_NOFOLLOW | LibC.O_CLOEXEC, 0));
        }

        if (at < 0)
        {
            return at;
        }

        int answer = FileCalls.Status(at, out FileStatus status);
        if (answer == 0)
        {
            answer = status.IsSocket ? ConnectStream($"/proc/self/fd/{at}") : -Errno.ECONNREFUSED;
        }

        _ = LibC.close(at);
        return answer;
    }

    /// <summary>
    /// A stream socket over IP that never blocks and is being connected, ip(7): it is writable when it is, or cannot be
    /// (<see cref="TakeError"/>).
    /// </summary>
    /// <param name="address">4 or 16 bytes.</param>
    /// <param name="scope">The interface of a link-local address of IPv6.</param>
    /// <param name="port">The port.</param>
    internal static int BeginConnectIp(ReadOnlySpan<byte> address, uint scope, ushort port)
    {
        bool isV6 = address.Length == 16;
        ushort family = (ushort)(isV6 ? LibC.AF_INET6 : LibC.AF_INET);
        Span<byte> name = stackalloc byte[isV6 ? 28 : 16]; // struct sockaddr_in6, sockaddr_in
        name.Clear();
        MemoryMarshal.Write(name, family);
        System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(name[2..], port);
        address.CopyTo(name[(isV6 ? 8 : 4)..]);
        if (isV6)
        {
            MemoryMarshal.Write(name[24..], scope);
        }

        int fd = Answer.Of(LibC.socket(family, LibC.SOCK_STREAM | LibC.SOCK_NONBLOCK | LibC.SOCK_CLOEXEC, 0));
        if (fd < 0)
        {
            return fd;
        }

        int on = 1;
        _ = LibC.setsockopt(fd, 6 /* IPPROTO_TCP */, 1 /* TCP_NODELAY */, &on, sizeof(int));
        _ = LibC.setsockopt(fd, LibC.SOL_SOCKET, LibC.SO_KEEPALIVE, &on, sizeof(int));
        int answer;
        fixed (byte* first = name)
        {
            answer = Answer.Of(LibC.connect(fd, (sockaddr*)first, name.Length));
        }

        if (answer is 0 or -Errno.EINPROGRESS)
        {
            return fd;
        }

        _ = LibC.close(fd);
        return answer;
    }

    /// <summary>What became of a socket that was being connected: 0, or -errno.</summary>
    internal static int TakeError(FileDescriptorHandle socket)
    {
        using DescriptorLease fd = new(socket);
        int error = 0;
        socklen_t length = sizeof(int);
        int answer = Answer.Of(LibC.getsockopt(fd.Number, LibC.SOL_SOCKET, LibC.SO_ERROR, &error, &length));
        return answer < 0 ? answer : -error;
    }

    /// <summary>Whoever calls this is the peer that SO_PEERCRED shows to those who connect.</summary>
    internal static int Listen(FileDescriptorHandle socket, int backlog)
    {
        using DescriptorLease fd = new(socket);
        return Answer.Of(LibC.listen(fd.Number, backlog));
    }

    /// <summary>The next connection, close-on-exec. Waits for one when the listener does.</summary>
    internal static int Accept(FileDescriptorHandle listener, bool nonblocking)
    {
        using DescriptorLease fd = new(listener);
        int answer;
        do
        {
            answer = Answer.Of(LibC.accept4(fd.Number, null, null, LibC.SOCK_CLOEXEC | (nonblocking ? LibC.SOCK_NONBLOCK : 0)));
        }
        while (answer == -Errno.EINTR);
        return answer;
    }

    internal static int Peer(SafeHandle socket, out ucred peer)
    {
        using DescriptorLease fd = new(socket);
        ucred found = default;
        socklen_t length = sizeof(ucred);
        int answer = Answer.Of(LibC.getsockopt(fd.Number, LibC.SOL_SOCKET, LibC.SO_PEERCRED, &found, &length));
        peer = found;
        return answer;
    }

    /// <summary>Bytes sent, or -errno; no SIGPIPE. Zero bytes ask whether the far side is still there (-EPIPE when not).</summary>
    internal static int Send(FileDescriptorHandle stream, ReadOnlySpan<byte> bytes)
    {
        using DescriptorLease fd = new(stream);
        fixed (byte* first = bytes)
        {
            long answer;
            do
            {
                answer = Answer.Of(LibC.send(fd.Number, first, bytes.Length, LibC.MSG_NOSIGNAL | LibC.MSG_DONTWAIT));
            }
            while (answer == -Errno.EINTR);
            return (int)answer;
        }
    }

    /// <summary>Bytes sent out of an array of iovecs, or -errno; no SIGPIPE.</summary>
    internal static long Send(FileDescriptorHandle stream, nint vectors, int count)
    {
        using DescriptorLease fd = new(stream);
        msghdr message = default;
        message.msg_iov = (iovec*)vectors;
        message.msg_iovlen = count;
        long answer;
        do
        {
            answer = Answer.Of(LibC.sendmsg(fd.Number, &message, LibC.MSG_NOSIGNAL | LibC.MSG_DONTWAIT));
        }
        while (answer == -Errno.EINTR);
        return answer;
    }

    /// <summary>Bytes received, 0 at the end, or -errno; with <paramref name="peek"/> they stay there.</summary>
    internal static int Receive(FileDescriptorHandle stream, Span<byte> bytes, bool peek)
    {
        using DescriptorLease fd = new(stream);
        fixed (byte* first = bytes)
        {
            long answer;
            do
            {
                answer = Answer.Of(LibC.recv(fd.Number, first, bytes.Length, LibC.MSG_DONTWAIT | (peek ? LibC.MSG_PEEK : 0)));
            }
            while (answer == -Errno.EINTR);
            return (int)answer;
        }
    }

    /// <summary>Sends no more, or with <paramref name="both"/> neither sends nor receives.</summary>
    internal static int Shutdown(FileDescriptorHandle stream, bool both)
    {
        using DescriptorLease fd = new(stream);
        return Answer.Of(LibC.shutdown(fd.Number, both ? LibC.SHUT_RDWR : LibC.SHUT_WR));
    }

    private static int Make(string path, int type, bool connect, int backlog)
    {
        const int length = sizeof(ushort) + PathLength;
        byte* address = stackalloc byte[length];
        if (!TryAddress(path, new Span<byte>(address, length)))
        {
            return -Errno.ENAMETOOLONG;
        }

        int fd = Answer.Of(LibC.socket(LibC.AF_UNIX, type | LibC.SOCK_CLOEXEC, 0));
        if (fd < 0)
        {
            return fd;
        }

        int answer = Answer.Of(connect ? LibC.connect(fd, (sockaddr*)address, length) : LibC.bind(fd, (sockaddr*)address, length));
        if (answer == 0 && backlog > 0)
        {
            answer = Answer.Of(LibC.listen(fd, backlog));
        }

        if (answer < 0)
        {
            _ = LibC.close(fd);
            return answer;
        }

        return fd;
    }

    /// <summary>struct sockaddr_un; false for a path that is empty, too long, or has a zero in it.</summary>
    private static bool TryAddress(string path, Span<byte> address)
    {
        address.Clear();
        MemoryMarshal.Write(address, (ushort)LibC.AF_UNIX);
        return path.Length > 0 && CString.TryOf(path, out byte[] name) && name.AsSpan().TryCopyTo(address[sizeof(ushort)..]);
    }
}
