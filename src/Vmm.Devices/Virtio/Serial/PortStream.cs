using Vmm.Interop;

namespace Vmm.Devices.Virtio.Serial;

/// <summary>The host's end of a port: a stream, and what the guest hears when that ends. Queue thread, once that has it.</summary>
/// <param name="socket">The stream; owned.</param>
/// <param name="farewell">Last words.</param>
internal sealed class PortStream(UnixStream socket, ReadOnlyMemory<byte> farewell) : IDisposable
{
    /// <summary>The stream.</summary>
    internal UnixStream Socket => socket;

    /// <summary>What the guest is told when the stream ends; empty is nothing.</summary>
    internal ReadOnlyMemory<byte> Farewell => farewell;

    /// <summary>Number of the stream in poll tags.</summary>
    internal ulong Id { get; init; }

    /// <summary>Nothing was there to read, and a poll waits for more.</summary>
    internal bool IsEmpty { get; set; }

    /// <summary>Nothing more fitted in, and a poll waits for room.</summary>
    internal bool IsFull { get; set; }

    /// <inheritdoc/>
    public void Dispose()
    {
        socket.Shutdown(); // ends the polls that io_uring holds the socket by
        socket.Dispose();
    }
}
