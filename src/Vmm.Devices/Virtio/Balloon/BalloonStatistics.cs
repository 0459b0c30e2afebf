using System.Buffers.Binary;

namespace Vmm.Devices.Virtio.Balloon;

/// <summary>
/// What the guest's driver last said about its memory (virtio 1.2 section 5.5.6.4). The guest may lie; null is a value it did not give.
/// </summary>
public sealed record BalloonStatistics
{
    /// <summary>Bytes swapped in since boot.</summary>
    public ulong? SwappedInBytes { get; init; }

    /// <summary>Bytes swapped out since boot.</summary>
    public ulong? SwappedOutBytes { get; init; }

    /// <summary>Faults that needed I/O.</summary>
    public ulong? MajorFaults { get; init; }

    /// <summary>Other page faults.</summary>
    public ulong? MinorFaults { get; init; }

    /// <summary>Unused memory, in bytes.</summary>
    public ulong? FreeBytes { get; init; }

    /// <summary>All memory the guest has, in bytes.</summary>
    public ulong? TotalBytes { get; init; }

    /// <summary>Memory to be had without swapping, in bytes.</summary>
    public ulong? AvailableBytes { get; init; }

    /// <summary>Disk caches that can be dropped, in bytes.</summary>
    public ulong? DiskCacheBytes { get; init; }

    /// <summary>Huge pages handed out.</summary>
    public ulong? HugePageAllocations { get; init; }

    /// <summary>Huge pages that could not be had.</summary>
    public ulong? HugePageFailures { get; init; }

    /// <summary>When the guest answered.</summary>
    public DateTimeOffset At { get; init; }

    /// <summary>Bytes of one entry: a 16-bit tag, a 64-bit value.</summary>
    internal const int EntryBytes = 10;

    /// <summary>Reads whole entries; a tag nobody knows is skipped, of a tag that comes twice the last counts.</summary>
    internal static BalloonStatistics Parse(ReadOnlySpan<byte> entries, DateTimeOffset at)
    {
        Span<ulong> values = stackalloc ulong[10];
        uint given = 0;
        for (; entries.Length >= EntryBytes; entries = entries[EntryBytes..])
        {
            ushort tag = BinaryPrimitives.ReadUInt16LittleEndian(entries);
            if (tag < values.Length)
            {
                values[tag] = BinaryPrimitives.ReadUInt64LittleEndian(entries[2..]);
                given |= 1u << tag;
            }
        }

        return new BalloonStatistics
        {
            SwappedInBytes = Value(values, given, 0),
            SwappedOutBytes = Value(values, given, 1),
            MajorFaults = Value(values, given, 2),
            MinorFaults = Value(values, given, 3),
            FreeBytes = Value(values, given, 4),
            TotalBytes = Value(values, given, 5),
            AvailableBytes = Value(values, given, 6),
            DiskCacheBytes = Value(values, given, 7),
            HugePageAllocations = Value(values, given, 8),
            HugePageFailures = Value(values, given, 9),
            At = at,
        };
    }

    private static ulong? Value(ReadOnlySpan<ulong> values, uint given, int tag) => (given & (1u << tag)) != 0 ? values[tag] : null;
}

/// <summary>The balloon as host and guest see it, at one moment.</summary>
/// <param name="TargetBytes">Size the host asks for.</param>
/// <param name="ActualBytes">Size the driver says it has (<c>actual</c>); the guest may lie.</param>
/// <param name="HeldBytes">Pages in the balloon by the host's own account, in bytes.</param>
/// <param name="DiscardedBytes">Memory given back to the host so far, inflated and reported pages, in bytes.</param>
/// <param name="Refused">Discards that the kernel refused.</param>
/// <param name="Guest">The guest's statistics; null until it sent any.</param>
public sealed record BalloonInfo(
    ulong TargetBytes, ulong ActualBytes, ulong HeldBytes, ulong DiscardedBytes, long Refused, BalloonStatistics? Guest);
