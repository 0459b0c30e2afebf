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

    private readonly byte[] _bytes = new byte[Length];

    public BlkConfig(in BlockGeometry disk, VirtioBlkOptions options)
    {
        Span<byte> b = _bytes;
        BinaryPrimitives.WriteUInt64LittleEndian(b, disk.CapacityBytes / 512);
        BinaryPrimitives.WriteUInt32LittleEndian(b[12..], (uint)SegMax(options.QueueSize));
        BinaryPrimitives.WriteUInt32LittleEndian(b[20..], (uint)disk.LogicalBlockSize);
        b[24] = (byte)BitOperations.Log2((uint)Math.Max(disk.PhysicalBlockSize / disk.LogicalBlockSize, 1));
        BinaryPrimitives.WriteUInt16LittleEndian(b[26..], (ushort)Math.Max(disk.PhysicalBlockSize / disk.LogicalBlockSize, 1));
        b[WritebackOffset] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(b[34..], (ushort)options.QueueCount);
        BinaryPrimitives.WriteUInt32LittleEndian(b[36..], MaxDiscardSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(b[40..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(b[44..], (uint)(disk.PhysicalBlockSize / 512));
        BinaryPrimitives.WriteUInt32LittleEndian(b[48..], MaxWriteZeroesSectors);
        BinaryPrimitives.WriteUInt32LittleEndian(b[52..], 1);
        b[56] = disk.Abilities.HasFlag(DiskAbilities.Discard) ? (byte)1 : (byte)0;
    }

    /// <summary>The driver's choice of cache mode (CONFIG_WCE): true when writes may stay in volatile caches until a flush.</summary>
    public bool Writeback
    {
        get => Volatile.Read(ref _bytes[WritebackOffset]) != 0;
        set => Volatile.Write(ref _bytes[WritebackOffset], value ? (byte)1 : (byte)0);
    }

    /// <summary>Data segments of one request: a chain of the queue's size, less header and status.</summary>
    public static int SegMax(int queueSize) => Math.Min(queueSize - 2, 126);

    public void Read(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            ReadOnlySpan<byte> rest = _bytes.AsSpan(offset);
            rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
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
}
