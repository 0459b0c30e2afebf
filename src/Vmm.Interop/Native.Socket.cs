using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/socket.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_socket_pair")]
    internal static partial int SocketPair(int packets, Span<int> fds);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_bind", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint SocketBind(string path, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_connect", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint SocketConnect(string path, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_listen")]
    internal static partial int SocketListen(FileDescriptorHandle fd, int backlog);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_accept")]
    internal static partial nint SocketAccept(FileDescriptorHandle fd, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_peer")]
    internal static partial int SocketPeer(System.Runtime.InteropServices.SafeHandle fd, out int pid, out uint uid, out uint gid);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_send")]
    internal static partial int SocketSend(FileDescriptorHandle fd, ReadOnlySpan<byte> bytes, int length, ReadOnlySpan<int> fds, int count, int timeout);

    [LibraryImport(Shim, EntryPoint = "vmm_socket_receive")]
    internal static partial int SocketReceive(FileDescriptorHandle fd, Span<byte> bytes, int capacity, Span<int> fds, int most, out int count);

    [LibraryImport(Shim, EntryPoint = "vmm_poll")]
    internal static partial int Poll(Span<PollEntry> entries, int count, long timeoutMicroseconds);
}
