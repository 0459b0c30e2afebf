using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>Who is at the other end of a unix socket, by SO_PEERCRED: for a listener, whoever called listen(2).</summary>
/// <param name="ProcessId">Process.</param>
/// <param name="UserId">Effective user.</param>
/// <param name="GroupId">Effective group.</param>
public readonly record struct PeerCredentials(int ProcessId, uint UserId, uint GroupId)
{
    /// <summary>Asks the kernel.</summary>
    /// <param name="socket">A unix socket.</param>
    /// <exception cref="KernelException">Not a unix socket.</exception>
    public static PeerCredentials Of(System.Runtime.InteropServices.SafeHandle socket)
    {
        KernelException.ThrowIfError(SocketCalls.Peer(socket, out ucred peer), "SO_PEERCRED");
        return new PeerCredentials(peer.pid, peer.uid, peer.gid);
    }
}

/// <summary>What <see cref="PacketSocket.Receive"/> found.</summary>
public enum PacketKind
{
    /// <summary>A packet.</summary>
    Packet,

    /// <summary>Nothing waits.</summary>
    Empty,

    /// <summary>Longer than the buffer, or with more descriptors than allowed; it was dropped and its descriptors closed.</summary>
    TooLarge,

    /// <summary>The other end is closed.</summary>
    End,
}

/// <summary>
/// A unix SOCK_SEQPACKET connection: packets keep their borders and carry descriptors (unix(7), SCM_RIGHTS). One thread receives; several
/// may send.
/// </summary>
public sealed class PacketSocket : IDisposable
{
    /// <summary>Most descriptors in one packet.</summary>
    public const int MaxDescriptors = PacketCalls.MaxDescriptors;

    /// <summary>Takes ownership of a connected socket.</summary>
    public PacketSocket(FileDescriptorHandle handle) => Handle = handle;

    /// <summary>The descriptor, for polling.</summary>
    public FileDescriptorHandle Handle { get; }

    /// <summary>The other end.</summary>
    /// <exception cref="KernelException">Not a unix socket.</exception>
    public PeerCredentials Peer => PeerCredentials.Of(Handle);

    /// <summary>The other end is closed; packets that it sent before may still wait here.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public bool HasHungUp
    {
        get
        {
            Span<PollEntry> polls = [new PollEntry(Handle, read: false)]; // POLLHUP is told without being asked for (poll(2))
            return Poll.Wait(polls, 0) > 0;
        }
    }

    /// <summary>Two connected ends.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public static (PacketSocket One, PacketSocket Other) CreatePair()
    {
        Span<int> fds = stackalloc int[2];
        KernelException.ThrowIfError(SocketCalls.Pair(packets: true, fds), "socketpair");
        return (new PacketSocket(new FileDescriptorHandle(fds[0])), new PacketSocket(new FileDescriptorHandle(fds[1])));
    }

    /// <summary>Connects to a listener in the file system.</summary>
    /// <exception cref="KernelException">ENOENT, ECONNREFUSED (nobody listens any more), EAGAIN (it takes no connections, and many wait),
    /// ENAMETOOLONG, …</exception>
    public static PacketSocket Connect(string path)
    {
        int fd = SocketCalls.ConnectPackets(path);
        return fd < 0 ? throw new KernelException($"connect {path}", -fd) : new PacketSocket(new FileDescriptorHandle(fd));
    }

    /// <summary>Sends one packet; waits for room at most that long.</summary>
    /// <exception cref="KernelException">EPIPE when the other end is closed, ETIMEDOUT, EMSGSIZE, …</exception>
    /// <exception cref="ArgumentOutOfRangeException">More than <see cref="MaxDescriptors"/>.</exception>
    public void Send(ReadOnlySpan<byte> bytes, ReadOnlySpan<FileDescriptorHandle> descriptors, int timeoutMilliseconds)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors, nameof(descriptors));
        KernelException.ThrowIfError(PacketCalls.Send(Handle, bytes, descriptors, timeoutMilliseconds), "sendmsg");
    }

    /// <summary>Takes one packet without waiting. The descriptors become the caller's.</summary>
    /// <exception cref="KernelException">The socket is broken in another way than by closing.</exception>
    public PacketKind Receive(Span<byte> buffer, int mostDescriptors, out int length, out FileDescriptorHandle[] descriptors)
    {
        Span<int> numbers = stackalloc int[Math.Min(mostDescriptors, MaxDescriptors)];
        length = PacketCalls.Receive(Handle, buffer, numbers, out int count);
        descriptors = [];
        if (length <= 0)
        {
            int error = -length;
            length = 0;
            for (int i = 0; i < count; i++)
            {
                _ = LibC.close(numbers[i]); // an empty packet counts as the end: nobody here sends one
            }

            return error switch
            {
                0 or Errno.ECONNRESET => PacketKind.End,
                Errno.EAGAIN => PacketKind.Empty,
                Errno.EMSGSIZE => PacketKind.TooLarge,
                _ => throw new KernelException("recvmsg", error),
            };
        }

        if (count > 0)
        {
            descriptors = new FileDescriptorHandle[count];
            for (int i = 0; i < count; i++)
            {
                descriptors[i] = new FileDescriptorHandle(numbers[i]);
            }
        }

        return PacketKind.Packet;
    }

    /// <inheritdoc/>
    public void Dispose() => Handle.Dispose();
}

/// <summary>The two sides of a named <see cref="PacketSocket"/>: one process binds the name, another may listen on it.</summary>
public static class PacketListener
{
    /// <summary>Makes the name; nobody listens yet.</summary>
    /// <exception cref="KernelException">EADDRINUSE, ENAMETOOLONG (107 bytes are the limit), EACCES, …</exception>
    public static FileDescriptorHandle Bind(string path)
    {
        int fd = SocketCalls.BindPackets(path);
        return fd < 0 ? throw new KernelException($"bind {path}", -fd) : new FileDescriptorHandle(fd);
    }

    /// <summary>Starts to listen: from now on SO_PEERCRED of those who connect names this process.</summary>
    /// <exception cref="KernelException">Not a bound socket.</exception>
    public static void Listen(FileDescriptorHandle listener) => KernelException.ThrowIfError(SocketCalls.Listen(listener, 64), "listen");

    /// <summary>Takes the next connection.</summary>
    /// <exception cref="KernelException">Not a listener, or out of descriptors.</exception>
    public static PacketSocket Accept(FileDescriptorHandle listener)
    {
        int fd = SocketCalls.Accept(listener, nonblocking: false);
        return fd < 0 ? throw new KernelException("accept", -fd) : new PacketSocket(new FileDescriptorHandle(fd));
    }
}
