using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Sockets of the kernel's network configuration, rtnetlink(7). Answers: a descriptor or count, or -errno.</summary>
internal static unsafe class RouteCalls
{
    private const int Netlink = 16; // AF_NETLINK; the protocol NETLINK_ROUTE is 0

    /// <summary>A socket that never blocks: the kernel has answered when a request was sent.</summary>
    internal static int Open() => Answer.Of(LibC.socket(Netlink, LibC.SOCK_RAW | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, 0));
}
