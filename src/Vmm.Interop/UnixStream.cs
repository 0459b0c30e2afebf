using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>A connected unix stream socket that never blocks, unix(7). One thread at a time.</summary>
public sealed class UnixStream : FileDescriptorHandle
{
    internal UnixStream(nint fd) : base(fd) { }

    /// <summary>What a thread asks for that serves streams that were accepted or passed. Neither makes a socket nor connects one.</summary>
    public static SyscallNeeds Needs { get; } = new(
        ["readv", "writev", "recvmsg", "sendmsg", "recvfrom", "sendto", "accept4", "shutdown", "getsockopt", "setsockopt"], []);

    /// <summary>What a thread asks for that sends and receives on streams that it was given, and no more.</summary>
    public static SyscallNeeds TransferNeeds { get; } = new(["sendmsg", "recvfrom", "sendto", "shutdown"], []);

    /// <summary>Two connected ends; the second is for somebody else.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public static (UnixStream Own, FileDescriptorHandle Theirs) CreatePair()
    {
        Span<int> fds = stackalloc int[2];
        KernelException.ThrowIfError(SocketCalls.Pair(packets: false, fds), "socketpair");
        return (new UnixStream(fds[0]), new FileDescriptorHandle(fds[1]));
    }

    /// <summary>Connects to a listener.</summary>
    /// <param name="path">Path of the socket, at most 107 bytes.</param>
    /// <param name="errno">Why not: ECONNREFUSED and ENOENT when nobody listens, EAGAIN when the listener's queue is full.</param>
    /// <returns>The stream, or null.</returns>
    public static UnixStream? Connect(string path, out int errno)
    {
        int fd = SocketCalls.ConnectStream(path);
        errno = Math.Max(-fd, 0);
        return fd < 0 ? null : new UnixStream(fd);
    }

    /// <summary>
    /// Connects to a listener whose name is the last part of the path itself, not a symbolic link to it: for a path where others may write.
    /// </summary>
    /// <param name="path">Path of the socket.</param>
    /// <param name="errno">As for <see cref="Connect"/>; ECONNREFUSED also when it is a link, or no socket.</param>
    /// <returns>The stream, or null.</returns>
    public static UnixStream? ConnectNoFollow(string path, out int errno)
    {
        int fd = SocketCalls.ConnectStreamNoFollow(path);
        errno = Math.Max(-fd, 0);
        return fd < 0 ? null : new UnixStream(fd);
    }

    /// <summary>A stream that somebody else connected, so that it never blocks, and passed; takes ownership.</summary>
    public static UnixStream FromDescriptor(FileDescriptorHandle descriptor) => new(descriptor.Detach());

    /// <summary>Sends what fits: bytes taken, 0 when none fits now, -1 when the far side reads no more.</summary>
    public int Send(ReadOnlySpan<byte> bytes)
    {
        int sent = SocketCalls.Send(this, bytes);
        return sent == -Errno.EAGAIN ? 0 : Math.Max(sent, -1);
    }

    /// <summary>Sends what fits out of an array of <see cref="IoVector"/>: bytes taken, 0 when none fits now, -1 when the far side reads
    /// no more.</summary>
    /// <param name="vectors">Address of the first, outside the managed heap.</param>
    /// <param name="count">How many, 1 to 1024.</param>
    public long Send(nint vectors, int count)
    {
        long sent = SocketCalls.Send(this, vectors, count);
        return sent == -Errno.EAGAIN ? 0 : Math.Max(sent, -1);
    }

    /// <summary>
    /// Sends all of a short message with descriptors (SCM_RIGHTS of unix(7)), or fails; waits for room at most that long.
    /// </summary>
    /// <exception cref="KernelException">EPIPE when the far side is closed, ETIMEDOUT, EMSGSIZE when only a part of it fitted.</exception>
    public void SendWhole(ReadOnlySpan<byte> bytes, ReadOnlySpan<FileDescriptorHandle> descriptors, int timeoutMilliseconds)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, PacketCalls.MaxDescriptors, nameof(descriptors));
        KernelException.ThrowIfError(PacketCalls.Send(this, bytes, descriptors, timeoutMilliseconds), "sendmsg");
    }

    /// <summary>Receives what is there: bytes, 0 at the end (or after an error), -1 when there is nothing now.</summary>
    public int Receive(Span<byte> into, bool peek = false)
    {
        int received = SocketCalls.Receive(this, into, peek);
        return received == -Errno.EAGAIN ? -1 : Math.Max(received, 0);
    }

    /// <summary>What a thread asks for beyond <see cref="TransferNeeds"/> that takes descriptors.</summary>
    public static SyscallNeeds PassingNeeds { get; } = new(["recvmsg"], []);

    /// <summary>The same with the descriptor that was sent with the first of these bytes; more than one is none.</summary>
    /// <param name="into">Takes the bytes.</param>
    /// <param name="passed">The descriptor, the caller's; null: there was none.</param>
    public int Receive(Span<byte> into, out FileDescriptorHandle? passed)
    {
        Span<int> numbers = stackalloc int[1];
        int received = PacketCalls.Receive(this, into, numbers, out int count);
        passed = received >= 0 && count == 1 ? new FileDescriptorHandle(numbers[0]) : null;
        return received == -Errno.EAGAIN ? -1 : Math.Max(received, 0);
    }

    /// <summary>The far side has closed its socket, and did not only shut down what it sends.</summary>
    public bool IsPeerGone => SocketCalls.Send(this, []) < 0;

    /// <summary>Sends no more.</summary>
    public void EndSend() => _ = SocketCalls.Shutdown(this, both: false);

    /// <summary>Neither sends nor receives; completes every poll that waits on it.</summary>
    public void Shutdown() => _ = SocketCalls.Shutdown(this, both: true);
}

/// <summary>A listening unix stream socket, unix(7); its file is removed when it is disposed.</summary>
public sealed class UnixListener : IDisposable
{
    private readonly string _path;
    private readonly FileFacts _file;

    /// <summary>Binds and listens. A socket of this user that nobody listens on any more is replaced, nothing else.</summary>
    /// <param name="path">Path of the socket, at most 107 bytes.</param>
    /// <param name="backlog">Connections that may wait to be accepted.</param>
    /// <exception cref="KernelException">Somebody else listens there (EADDRINUSE), it is no socket (ENOTSOCK) or another user's (EPERM), or
    /// the kernel refused.</exception>
    public UnixListener(string path, int backlog = 16)
    {
        _path = path;
        int fd = SocketCalls.ListenStream(path, backlog);
        if (fd == -Errno.EADDRINUSE)
        {
            SocketFile.RemoveDead(path);
            fd = SocketCalls.ListenStream(path, backlog);
        }

        Handle = fd < 0 ? throw new KernelException($"listen on {path}", -fd) : new FileDescriptorHandle(fd);
        _ = FileFacts.TryOf(path, out _file);
    }

    /// <summary>A listener that somebody else bound and passed; takes ownership. Its name is not this one's to take away.</summary>
    public UnixListener(FileDescriptorHandle passed) => (_path, Handle) = ("", passed);

    /// <summary>The descriptor, for polling and for passing on.</summary>
    public FileDescriptorHandle Handle { get; }

    /// <summary>Closes it and leaves its name to whom it was passed.</summary>
    public void Leave() => Handle.Dispose();

    /// <summary>Takes a connection that waits; null when there is none.</summary>
    public UnixStream? Accept()
    {
        int fd = SocketCalls.Accept(Handle, nonblocking: true);
        return fd < 0 ? null : new UnixStream(fd);
    }

    /// <summary>Closes it and takes its name away; a confined process cannot, and leaves that to who started it.</summary>
    public void Dispose()
    {
        if (Handle.IsClosed)
        {
            return;
        }

        Handle.Dispose();
        if (_path.Length == 0)
        {
            return;
        }

        try
        {
            SocketFile.RemoveIfSame(_path, _file);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            // The next listener at this path finds that nobody listens any more, and replaces it.
        }
    }
}
