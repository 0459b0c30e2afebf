namespace Vmm.Devices.Virtio.Net;

/// <summary>How a network device is presented and served.</summary>
public sealed record VirtioNetOptions
{
    /// <summary>Name for threads and messages, e.g. <c>net0</c>.</summary>
    public string Name { get; init; } = "net";

    /// <summary>The guest's MAC address, 6 bytes, not a group address.</summary>
    public required ReadOnlyMemory<byte> Mac { get; init; }

    /// <summary>MTU told to the guest, 68 to 65535 bytes; 0 tells none.</summary>
    public int Mtu { get; init; }

    /// <summary>Size of each queue, a power of two from 16 to 1024.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>Limit in each direction at the start; null is none.</summary>
    public RateLimit? Limit { get; init; }

    /// <summary>Longest busy poll before an I/O thread sleeps, in microseconds, 0 to 10000; 0 switches polling off.</summary>
    public int PollMicroseconds { get; init; } = 50;

    /// <summary>Throws when a value is out of range.</summary>
    /// <exception cref="ArgumentException">The message names the option.</exception>
    public void Validate()
    {
        Require(Mac.Length == 6 && (Mac.Span[0] & 1) == 0, nameof(Mac), "Mac must be 6 bytes and no group address");
        Require(Mtu is 0 or (>= 68 and <= 65535), nameof(Mtu), "Mtu must be 68 to 65535, or 0");
        Require(QueueSize is >= 16 and <= 1024 && (QueueSize & (QueueSize - 1)) == 0, nameof(QueueSize),
            "QueueSize must be a power of two from 16 to 1024");
        Require(PollMicroseconds is >= 0 and <= 10_000, nameof(PollMicroseconds), "PollMicroseconds must be 0 to 10000");
    }

    private static void Require(bool condition, string option, string message)
    {
        if (!condition)
        {
#pragma warning disable MA0015 // The parameter at fault is a property of this record.
            throw new ArgumentException("virtio-net: " + message, option);
#pragma warning restore MA0015
        }
    }
}
