using System.Buffers.Binary;
using System.Numerics;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>Feature bits of virtio 1.2 section 5.2.3, as masks.</summary>
internal static class BlkFeatures
{
    public const ulong SegMax = 1UL << 2;
    public const ulong ReadOnly = 1UL << 5;
    public const ulong BlockSize = 1UL << 6;
    public const ulong Flush = 1UL << 9;
    public const ulong Topology = 1UL << 10;
    public const ulong ConfigWce = 1UL << 11;
    public const ulong MultiQueue = 1UL << 12;
    public const ulong Discard = 1UL << 13;
    public const ulong WriteZeroes = 1UL << 14;

    public static ulong For(in BlockGeometry disk, int queues)
    {
        ulong features = SegMax | BlockSize | Flush | Topology | ConfigWce;
        features |= disk.ReadOnly ? ReadOnly : 0;
        features |= queues > 1 ? MultiQueue : 0;
        features |= disk.Abilities.HasFlag(DiskAbilities.Discard) ? Discard : 0;
        features |= disk.Abilities.HasFlag(DiskAbilities.WriteZeroes) ? WriteZeroes : 0;
        return features;
    }
}

/// <summary>The configuration space, virtio 1.2 section 5.2.4. Only the write-back byte is writable.</summary>
internal sealed class BlkConfig
{
    public const int Length = 60;
    public const uint MaxDiscardSectors = 1 << 21; // 1 GiB
    public const uint MaxWriteZeroesSectors = 1 << 16; // 32 MiB: bounded, because it may end in writing them
    private const int WritebackOffset = 32;

    private readonly Lock _gate = new(); // a size is read whole
    private readonly byte[] _bytes = new byte[Length];
    private ulong _capacityBytes;

    public BlkConfig(in BlockGeometry disk, VirtioBlkOptions options)
    {
        Span<byte> b = _bytes;
        LogicalBlockSize = options.LogicalBlockSize ?? disk.LogicalBlockSize;
        TryGrow(disk.CapacityBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(b[12..], (uint)SegMax(options.QueueSize));
        WriteTopology(disk, LogicalBlockSize);
        b[WritebackOffset] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(b[34..], (ushort)options.QueueCount);
        BinaryPrimitives.WriteUInt32LittleEndian(b[36..], MaxDiscardSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(b[40..], BlkSegments.Most);
        BinaryPrimitives.WriteUInt32LittleEndian(b[48..], MaxWriteZeroesSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(b[52..], BlkSegments.Most);
        b[56] = disk.Abilities.HasFlag(DiskAbilities.Discard) ? (byte)1 : (byte)0;
    }

    /// <summary>Bytes of a logical block.</summary>
    public int LogicalBlockSize { get; }

    /// <summary>The size that the driver is told, whole logical blocks.</summary>
    public ulong CapacityBytes => Volatile.Read(ref _capacityBytes);

    /// <summary>The driver's choice of cache mode (CONFIG_WCE): true when writes may stay in volatile caches until a flush.</summary>
    public bool Writeback
    {
        get => Volatile.Read(ref _bytes[WritebackOffset]) != 0;
        set => Volatile.Write(ref _bytes[WritebackOffset], value ? (byte)1 : (byte)0);
    }

    /// <summary>Data segments of one request: a chain of the queue's size, less header and status.</summary>
    public static int SegMax(int queueSize) => Math.Min(queueSize - 2, 126);

    /// <summary>The disk has this many bytes now. False when its driver sees nothing of that: it is not a whole block more.</summary>
    public bool TryGrow(ulong bytes)
    {
        bytes -= bytes % (ulong)LogicalBlockSize;
        lock (_gate)
        {
            if (bytes <= _capacityBytes)
            {
                return false;
            }

            Volatile.Write(ref _capacityBytes, bytes);
            BinaryPrimitives.WriteUInt64LittleEndian(_bytes, bytes / 512);
            return true;
        }
    }

    public void Read(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            ReadOnlySpan<byte> rest = _bytes.AsSpan(offset);
            lock (_gate)
            {
                rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
            }
        }
    }

    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        int at = WritebackOffset - offset;
        if (offset >= 0 && at >= 0 && at < data.Length)
        {
            Writeback = data[at] != 0;
        }
    }

    // blk_size, topology (in logical blocks) and discard_sector_alignment (in sectors).
    private void WriteTopology(in BlockGeometry disk, int logical)
    {
        Span<byte> b = _bytes;
        int physical = Math.Max(disk.PhysicalBlockSize, logical);
        uint minimum = Math.Max(disk.MinimumIo, (uint)physical), misaligned = disk.AlignmentOffset / (uint)logical;
        BinaryPrimitives.WriteUInt32LittleEndian(b[20..], (uint)logical);
        b[24] = (byte)BitOperations.Log2((uint)(physical / logical));
        b[25] = misaligned <= byte.MaxValue ? (byte)misaligned : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(b[26..], (ushort)Math.Min(minimum / (uint)logical, ushort.MaxValue));
        BinaryPrimitives.WriteUInt32LittleEndian(b[28..], disk.OptimalIo / (uint)logical);
        uint discard = disk.DiscardGranularity != 0 ? disk.DiscardGranularity : (uint)disk.PhysicalBlockSize;
        BinaryPrimitives.WriteUInt32LittleEndian(b[44..], Math.Max(discard, (uint)logical) / 512);
    }
}
