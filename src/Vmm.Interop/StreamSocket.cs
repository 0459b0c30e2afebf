namespace Vmm.Interop;

/// <summary>Byte streams over socketpair(2), read and written without waiting.</summary>
public static class StreamSocket
{
    private const int Eagain = 11;

    /// <summary>Two connected, close-on-exec ends.</summary>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public static (FileDescriptorHandle One, FileDescriptorHandle Other) CreatePair(bool packets = false)
    {
        Span<int> fds = stackalloc int[2];
        KernelException.ThrowIfError(Native.SocketPair(packets ? 1 : 0, fds), "socketpair");
        return (new FileDescriptorHandle(fds[0]), new FileDescriptorHandle(fds[1]));
    }

    /// <summary>Bytes read; -1 when none wait; 0 at the end or on a broken stream.</summary>
    public static int TryRead(FileDescriptorHandle stream, Span<byte> buffer)
    {
        int n = Native.StreamRead(stream, buffer, buffer.Length);
        return n >= 0 ? n : n == -Eagain ? -1 : 0;
    }

    /// <summary>Bytes written; -1 when there is no room; -2 when nobody reads any more.</summary>
    public static int TryWrite(FileDescriptorHandle stream, ReadOnlySpan<byte> bytes)
    {
        int n = Native.StreamWrite(stream, bytes, bytes.Length);
        return n >= 0 ? n : n == -Eagain ? -1 : -2;
    }
}
