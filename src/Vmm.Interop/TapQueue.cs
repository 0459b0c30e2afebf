using System.Runtime.InteropServices;
using System.Text;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>What the reader of a tap takes unfinished, the TUN_F_ bits of linux/if_tun.h.</summary>
[Flags]
public enum TapOffloads : uint
{
    /// <summary>Whole frames with whole checksums only.</summary>
    None = 0,

    /// <summary>Frames whose checksum is still to be computed.</summary>
    Checksum = 1,

    /// <summary>TCP over IPv4 longer than the MTU.</summary>
    Tso4 = 2,

    /// <summary>TCP over IPv6 longer than the MTU.</summary>
    Tso6 = 4,

    /// <summary>Such with ECN bits.</summary>
    TsoEcn = 8,
}

/// <summary>
/// One queue of a tap device: reads and writes whole Ethernet frames behind a virtio header of 12 bytes, never blocking. One thread at a
/// time.
/// </summary>
public sealed class TapQueue : IDisposable
{
    /// <summary>Bytes in front of each frame: struct virtio_net_hdr_v1, virtio 1.2 section 5.1.6.</summary>
    public const int HeaderLength = 12;

    /// <summary>What a thread asks for that moves frames, and sets the queue up.</summary>
    public static SyscallNeeds Needs { get; } = new(["readv", "writev"], TapCalls.SetupRequests);

    /// <summary>What a driver's negotiation and its queue command make of a tap, on the vCPU thread that writes the register.</summary>
    public static SyscallNeeds SetupNeeds { get; } = new([], TapCalls.SetupRequests);

    /// <summary>What a tap is asked about itself when it comes.</summary>
    public static SyscallNeeds OpenNeeds { get; } = new([], TapCalls.OpenRequests);

    private TapQueue(FileDescriptorHandle handle, string name)
    {
        Handle = handle;
        Name = name;
    }

    /// <summary>Name of the network interface.</summary>
    public string Name { get; }

    /// <summary>The descriptor, for polling and passing on.</summary>
    public FileDescriptorHandle Handle { get; }

    /// <summary>Opens a queue of a tap that exists.</summary>
    /// <param name="name">Name of the interface, at most 15 bytes.</param>
    /// <param name="multiQueue">The tap has several queues; each open gives one more of them.</param>
    /// <exception cref="TapException">It does not exist, is no such tap, is in use, or may not be opened.</exception>
    public static TapQueue Open(string name, bool multiQueue)
    {
        int fd = TapCalls.Open(name, multiQueue);
        return fd >= 0 ? FromDescriptor(new FileDescriptorHandle(fd)) : throw new TapException(-fd switch
        {
            Errno.ENODEV =>
                $"tap {name} does not exist: create it with 'ip tuntap add dev {name} mode tap{(multiQueue ? " multi_queue" : "")}'",
            Errno.ENOENT => "/dev/net/tun does not exist: load the tun module",
            Errno.EBUSY => $"tap {name} is in use by another program",
            Errno.EINVAL => multiQueue
                ? $"{name} is not a tap with several queues: create it with 'ip tuntap add dev {name} mode tap multi_queue'"
                : $"{name} is not a tap with one queue: create it with 'ip tuntap add dev {name} mode tap', or give it more queues here",
            Errno.EPERM or Errno.EACCES => $"tap {name}: permission denied: run as root, or create it for this user with 'ip tuntap add "
                + $"dev {name} mode tap user NAME'",
            Errno.E2BIG => $"tap {name} has no more queues to give",
            _ => new KernelException($"open tap {name}", -fd).Message,
        });
    }

    /// <summary>Makes a tap, and opens its first queue. The tap is gone when its last queue is closed, whoever held it.</summary>
    /// <param name="pattern">Its name, with <c>%d</c> for a number that no interface has.</param>
    /// <param name="multiQueue">It may have several queues; <see cref="Open"/> gives the others.</param>
    /// <exception cref="TapException">It may not be made, or cannot.</exception>
    public static TapQueue Make(string pattern, bool multiQueue)
    {
        int fd = TapCalls.Make(pattern, multiQueue);
        return fd >= 0 ? FromDescriptor(new FileDescriptorHandle(fd)) : throw new TapException(-fd switch
        {
            Errno.ENOENT => "/dev/net/tun does not exist: load the tun module",
            Errno.EPERM or Errno.EACCES => "making a tap is not permitted: it needs CAP_NET_ADMIN; a user has --net user",
            _ => new KernelException("make a tap", -fd).Message,
        });
    }

    /// <summary>Opens a queue of a macvtap interface.</summary>
    /// <param name="device">Its device, <c>/dev/tapN</c>; each open gives one queue more.</param>
    /// <exception cref="TapException">It is no such device, or may not be opened.</exception>
    public static TapQueue OpenDevice(string device)
    {
        int fd = TapCalls.OpenDevice(device);
        return fd >= 0
            ? FromDescriptor(new FileDescriptorHandle(fd))
            : throw new TapException(new KernelException($"open {device}", -fd).Message);
    }

    /// <summary>Takes ownership of a descriptor that somebody else opened.</summary>
    /// <exception cref="TapException">It is no tap queue, or not one with frame headers.</exception>
    public static TapQueue FromDescriptor(FileDescriptorHandle descriptor)
    {
        Span<byte> name = stackalloc byte[16];
        int answer = TapCalls.Check(descriptor, name);
        if (answer == 0)
        {
            answer = TapCalls.SetHeaderLength(descriptor, HeaderLength);
        }

        if (answer != 0)
        {
            descriptor.Dispose();
            throw new TapException(answer == -Errno.EINVAL
                ? "the descriptor is a tap queue without frame headers: open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
                : $"the descriptor is no tap queue: {new KernelException("TUNGETIFF", -answer).Message}");
        }

        int length = name.IndexOf((byte)0);
        return new TapQueue(descriptor, Encoding.ASCII.GetString(length < 0 ? name : name[..length]));
    }

    /// <summary>The MTU of the interface in bytes, or 0 when this network namespace has no interface of that name.</summary>
    public static int MtuOf(string name) => Math.Max(TapCalls.Mtu(name), 0);

    /// <summary>Says what this side takes unfinished; false when the kernel does not know one of them.</summary>
    public bool TrySetOffloads(TapOffloads offloads) => TapCalls.SetOffloads(Handle, (uint)offloads) == 0;

    /// <summary>
    /// Gives the queue its share of the frames, or takes it away. False when it was so already, or the tap has one queue.
    /// </summary>
    public bool TryAttach(bool attach) => TapCalls.Attach(Handle, attach) == 0;

    /// <summary>
    /// Reads frames with their headers, one into each vector, until there is none, all were read, or one was longer than its room. A frame
    /// longer than its vector loses its end.
    /// </summary>
    /// <returns>How many were read. The result of the next one, if any, is the -errno that ended it (EAGAIN: none there), unless a frame
    /// was too long.</returns>
    public int Read(Span<TapFrame> frames) => Native.TapRead(Handle, frames, frames.Length);

    /// <summary>Writes frames with their headers until all are written or there is no room.</summary>
    /// <returns>How many were taken, or refused for what they are: then the result is an -errno.</returns>
    public int Write(Span<TapFrame> frames) => Native.TapWrite(Handle, frames, frames.Length);

    /// <inheritdoc/>
    public void Dispose() => Handle.Dispose();
}

/// <summary>A frame that is read or written: an iovec, and what became of it. Twin of struct vmm_tap_frame.</summary>
/// <param name="vectors">Address of the first <see cref="IoVector"/>.</param>
/// <param name="count">How many; a frame to be written that has none is refused.</param>
/// <param name="room">Reading: bytes after which a frame counts as too long for its place and ends the batch.</param>
[StructLayout(LayoutKind.Sequential)]
public struct TapFrame(nint vectors, int count, int room = int.MaxValue)
{
    /// <summary>Address of the first <see cref="IoVector"/>.</summary>
    public readonly nint Vectors = vectors;

    /// <summary>Number of vectors.</summary>
    public readonly int Count = count;

    /// <summary>Reading: a longer frame ends the batch.</summary>
    public readonly int Room = room;

    /// <summary>Bytes moved, or -errno.</summary>
    public long Result;
}

/// <summary>A tap cannot be used; the message says what to do.</summary>
public sealed class TapException(string message) : Exception(message);
