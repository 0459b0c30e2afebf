using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>Twin of native-shim/unixstream.c.</summary>
internal static partial class Native
{
    [LibraryImport(Shim, EntryPoint = "vmm_stream_listen", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint StreamListen(string path, int backlog, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_connect", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint StreamConnect(string path, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_connect_nofollow", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial nint StreamConnectNoFollow(string path, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_accept")]
    internal static partial nint StreamAccept(FileDescriptorHandle listener, out int errno);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_send")]
    internal static partial int StreamSend(FileDescriptorHandle stream, ReadOnlySpan<byte> bytes, int length);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_receive")]
    internal static partial int StreamReceive(FileDescriptorHandle stream, Span<byte> bytes, int length, int peek);

    [LibraryImport(Shim, EntryPoint = "vmm_stream_shutdown")]
    internal static partial int StreamShutdown(FileDescriptorHandle stream, int how);
}
