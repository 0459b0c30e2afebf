using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>struct ifreq of netdevice(7): a name, and the one value of it that a request uses.</summary>
[StructLayout(LayoutKind.Explicit, Size = 40)]
internal unsafe struct InterfaceRequest
{
    internal const int NameLength = 16; // IFNAMSIZ

    [FieldOffset(0)] internal fixed byte Name[NameLength];
    [FieldOffset(16)] internal short Flags;
    [FieldOffset(16)] internal int Mtu;
    [FieldOffset(16)] internal int Index;

    /// <summary>False for a name that is empty or too long.</summary>
    internal static bool TryMake(string name, out InterfaceRequest request)
    {
        request = default;
        fixed (byte* at = request.Name)
        {
            return name.Length > 0 && CString.TryOf(name, out byte[] bytes) && bytes.AsSpan().TryCopyTo(new Span<byte>(at, NameLength));
        }
    }
}

/// <summary>
/// Tap devices (linux/if_tun.h): opening queues, and what they accept. Moving frames is in native-shim/tap.c. Answers: 0, a descriptor or a
/// number, or -errno.
/// </summary>
internal static unsafe class TapCalls
{
    private const uint SetInterface = 0x400454ca, GetInterface = 0x800454d2, SetOffload = 0x400454d0, SetHeaderSize = 0x400454d8,
        SetQueue = 0x400454d9;
    /// <summary>Requests of <see cref="SetOffloads"/> and <see cref="Attach"/>.</summary>
    internal static readonly uint[] SetupRequests = [SetOffload, SetQueue];

    /// <summary>Requests of <see cref="Check"/> and <see cref="SetHeaderLength"/>.</summary>
    internal static readonly uint[] OpenRequests = [GetInterface, SetHeaderSize];

    private const int IsTap = 2, NoPacketInformation = 0x1000, FrameHeader = 0x4000, MultiQueue = 0x100, AttachQueue = 0x200,
        DetachQueue = 0x400;

    /// <summary>
    /// One queue of a tap that exists already: TUNSETIFF would make a missing one, so its existence is asked first (-ENODEV).
    /// </summary>
    internal static int Open(string name, bool multiQueue)
    {
        if (!InterfaceRequest.TryMake(name, out InterfaceRequest request))
        {
            return -Errno.ENAMETOOLONG;
        }

        int answer = Ask(LibC.SIOCGIFINDEX, ref request);
        return answer < 0 ? answer : OpenQueue(ref request, multiQueue);
    }

    /// <summary>
    /// The first queue of a new tap, which goes with its last queue. The kernel puts a number for the <c>%d</c> of its name.
    /// </summary>
    internal static int Make(string pattern, bool multiQueue)
    {
        InterfaceRequest.TryMake(pattern, out InterfaceRequest request);
        return OpenQueue(ref request, multiQueue);
    }

    /// <summary>A queue of a macvtap interface. It has frame headers from the beginning, and no packet information.</summary>
    internal static int OpenDevice(string device) => FileCalls.Open(device, LibC.O_RDWR | LibC.O_NONBLOCK);

    private static int OpenQueue(ref InterfaceRequest request, bool multiQueue)
    {
        int fd = FileCalls.Open("/dev/net/tun", LibC.O_RDWR | LibC.O_NONBLOCK);
        if (fd < 0)
        {
            return fd;
        }

        request.Index = 0;
        request.Flags = (short)(IsTap | NoPacketInformation | FrameHeader | (multiQueue ? MultiQueue : 0));
        int answer;
        fixed (InterfaceRequest* at = &request)
        {
            answer = FileCalls.Ioctl(fd, SetInterface, at);
        }

        if (answer < 0)
        {
            _ = LibC.close(fd);
            return answer;
        }

        return fd;
    }

    /// <summary>
    /// Whether a descriptor is a tap queue with frame headers and no packet information: 0, -ENOTTY or -EINVAL. The name has room for 16
    /// bytes.
    /// </summary>
    internal static int Check(FileDescriptorHandle tap, Span<byte> name)
    {
        using DescriptorLease fd = new(tap);
        InterfaceRequest request = default;
        int answer = FileCalls.Ioctl(fd.Number, GetInterface, &request);
        if (answer < 0)
        {
            return answer;
        }

        new ReadOnlySpan<byte>(request.Name, InterfaceRequest.NameLength).CopyTo(name);
        const int wanted = IsTap | FrameHeader | NoPacketInformation;
        return (request.Flags & wanted) == wanted ? 0 : -Errno.EINVAL;
    }

    internal static int SetHeaderLength(FileDescriptorHandle tap, int bytes)
    {
        using DescriptorLease fd = new(tap);
        return FileCalls.Ioctl(fd.Number, SetHeaderSize, &bytes);
    }

    /// <summary>What the reader of the tap takes as it is: TUN_F_ bits.</summary>
    internal static int SetOffloads(FileDescriptorHandle tap, uint bits)
    {
        using DescriptorLease fd = new(tap);
        return FileCalls.Ioctl(fd.Number, SetOffload, (void*)bits);
    }

    /// <summary>Frames go to attached queues only; -EINVAL when it is so already, or the tap has one queue.</summary>
    internal static int Attach(FileDescriptorHandle tap, bool attach)
    {
        using DescriptorLease fd = new(tap);
        InterfaceRequest request = new() { Flags = (short)(attach ? AttachQueue : DetachQueue) };
        return FileCalls.Ioctl(fd.Number, SetQueue, &request);
    }

    /// <summary>Bytes.</summary>
    internal static int Mtu(string name)
    {
        if (!InterfaceRequest.TryMake(name, out InterfaceRequest request))
        {
            return -Errno.ENAMETOOLONG;
        }

        int answer = Ask(LibC.SIOCGIFMTU, ref request);
        return answer < 0 ? answer : request.Mtu;
    }

    /// <summary>A question about an interface, which any socket can be asked.</summary>
    private static int Ask(int question, ref InterfaceRequest request)
    {
        int fd = Answer.Of(LibC.socket(LibC.AF_UNIX, LibC.SOCK_DGRAM | LibC.SOCK_CLOEXEC, 0));
        if (fd < 0)
        {
            return fd;
        }

        int answer;
        fixed (InterfaceRequest* at = &request)
        {
            answer = FileCalls.Ioctl(fd, (uint)question, at);
        }

        _ = LibC.close(fd);
        return answer;
    }
}
