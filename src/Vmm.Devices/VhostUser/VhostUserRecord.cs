using System.Buffers.Binary;
using Vmm.Interop;

namespace Vmm.Devices.VhostUser;

/// <summary>
/// The record of requests in flight (section "Inflight I/O tracking" of vhost-user.rst) in memory of ours, which outlives back ends: each
/// notes there what it took and did not complete, and the next one carries that out, once. Its layout is QueueRegionSplit: 16 bytes of
/// head, then 16 for each descriptor, in multiples of 64.
/// </summary>
internal sealed class VhostUserRecord : IDisposable
{
    private const int HeadLength = 16, EntryLength = 16, Granule = 64, PageSize = 4096;
    private const int VersionAt = 8, LastBatchAt = 12, UsedIndexAt = 14; // of the head

    private readonly MappedMemFd _memory;
    private readonly int _stride;

    /// <summary>Makes it, empty.</summary>
    /// <param name="rings">How many.</param>
    /// <param name="size">Most descriptors of each.</param>
    /// <exception cref="KernelException">No memory.</exception>
    internal VhostUserRecord(int rings, ushort size)
    {
        (Rings, Size) = (rings, size);
        _stride = (HeadLength + (EntryLength * size) + Granule - 1) / Granule * Granule;
        ulong length = (ulong)rings * (ulong)_stride;
        _memory = new MappedMemFd("vhost-user-record", (length + PageSize - 1) / PageSize * PageSize, PageSize);
    }

    /// <summary>Rings that it is of.</summary>
    internal int Rings { get; }

    /// <summary>Descriptors of each.</summary>
    internal ushort Size { get; }

    /// <summary>Its length, bytes.</summary>
    internal ulong Length => _memory.Length;

    /// <summary>The file, for back ends.</summary>
    internal FileDescriptorHandle File => _memory.BackingFile;

    /// <summary>Nothing is in flight. While no back end has rings.</summary>
    internal void Clear()
    {
        Span<byte> zeros = stackalloc byte[Granule];
        zeros.Clear();
        for (ulong at = 0; at < (ulong)Rings * (ulong)_stride; at += Granule)
        {
            _memory.CopyFrom(at, zeros);
        }
    }

    /// <summary>
    /// Requests of a ring that a back end which is gone had taken and not completed, as the next one will count them. Whatever is written
    /// there is only counted.
    /// </summary>
    /// <param name="ring">The ring.</param>
    /// <param name="used">Its used index.</param>
    internal int CountInFlight(int ring, ushort used)
    {
        ulong at = (ulong)ring * (ulong)_stride;
        Span<byte> head = stackalloc byte[HeadLength];
        _memory.CopyTo(at, head);
        if (BinaryPrimitives.ReadUInt16LittleEndian(head[VersionAt..]) == 0)
        {
            return 0; // no back end has begun with it
        }

        // It ended between the used index and its note: what it completed last is not in flight.
        int completed = BinaryPrimitives.ReadUInt16LittleEndian(head[UsedIndexAt..]) == used
            ? -1
            : BinaryPrimitives.ReadUInt16LittleEndian(head[LastBatchAt..]);
        int count = 0;
        Span<byte> one = stackalloc byte[1];
        for (int i = 0; i < Size; i++)
        {
            _memory.CopyTo(at + HeadLength + ((ulong)i * EntryLength), one);
            count += one[0] == 1 && i != completed ? 1 : 0;
        }

        return count;
    }

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();
}
