using System.Buffers.Binary;
using System.Numerics;
using Vmm.Devices.VhostUser;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// The configuration space (virtio 1.2 section 5.2.4) of a disk that a back end has. What it says is the guest's to believe, so what no
/// driver may meet is left out or bounded, and what makes no disk is refused. No field is writable: the cache mode is not offered.
/// </summary>
internal sealed class VhostUserBlkConfig
{
    /// <summary>Its length: up to what DISCARD and WRITE_ZEROES need.</summary>
    internal const int Length = BlkConfig.Length;

    private const ulong SizeMax = 1UL << 1; // VIRTIO_BLK_F_SIZE_MAX
    private const ulong Known = SizeMax | BlkFeatures.SegMax | BlkFeatures.ReadOnly | BlkFeatures.BlockSize | BlkFeatures.Flush
        | BlkFeatures.Topology | BlkFeatures.Discard | BlkFeatures.WriteZeroes;

    // struct virtio_blk_config
    private const int SizeMaxAt = 8, SegMaxAt = 12, BlockSizeAt = 20, PhysicalAt = 24, QueuesAt = 34, DiscardSectorsAt = 36,
        DiscardSegmentsAt = 40, ZeroSectorsAt = 48, ZeroSegmentsAt = 52;

    private const ulong MostSectors = 1UL << 53; // 4 EiB: no count of bytes overflows
    private const int LeastSegment = 4096, MostExponent = 8;

    private readonly Lock _gate = new();
    private readonly int _queues, _queueSize;
    private readonly byte[] _bytes = new byte[Length]; // under the gate

    /// <summary>Takes that of the first back end.</summary>
    /// <param name="features">What it offers.</param>
    /// <param name="config">Its configuration space.</param>
    /// <param name="queues">Request queues.</param>
    /// <param name="queueSize">Descriptors of each.</param>
    /// <exception cref="VhostUserException">It makes no disk.</exception>
    internal VhostUserBlkConfig(ulong features, ReadOnlySpan<byte> config, int queues, int queueSize)
    {
        (_queues, _queueSize) = (queues, queueSize);
        Features = Offered(features & Known, config) | (queues > 1 ? BlkFeatures.MultiQueue : 0);
        Check(config);
        Bounded(config).CopyTo(_bytes, 0);
    }

    /// <summary>What the driver may choose from; the same for the life of the device.</summary>
    internal ulong Features { get; }

    /// <summary>The size, in sectors of 512 bytes.</summary>
    internal ulong Sectors
    {
        get
        {
            lock (_gate)
            {
                return BinaryPrimitives.ReadUInt64LittleEndian(_bytes);
            }
        }
    }

    private uint BlockSize => (Features & BlkFeatures.BlockSize) != 0 ? Word(_bytes, BlockSizeAt) : 512;

    /// <summary>Takes what a back end says now; true when the driver is to read it.</summary>
    /// <param name="config">Its configuration space.</param>
    /// <param name="mayShrink">It is the same disk, which may have been cut.</param>
    /// <exception cref="VhostUserException">It makes no disk, or another one.</exception>
    internal bool Take(ReadOnlySpan<byte> config, bool mayShrink)
    {
        Check(config);
        ulong sectors = BinaryPrimitives.ReadUInt64LittleEndian(config);
        byte[] next = Bounded(config);
        lock (_gate)
        {
            ulong before = BinaryPrimitives.ReadUInt64LittleEndian(_bytes);
            if (sectors < before && !mayShrink)
            {
                throw new VhostUserException($"its disk has {sectors} sectors, and had {before}: it is another one, or was cut");
            }

            if ((Features & BlkFeatures.BlockSize) != 0 && Word(config, BlockSizeAt) != BlockSize)
            {
                throw new VhostUserException($"its disk has blocks of {Word(config, BlockSizeAt)} bytes, and had {BlockSize}");
            }

            bool changed = !next.AsSpan().SequenceEqual(_bytes);
            next.CopyTo(_bytes, 0);
            return changed;
        }
    }

    /// <summary>Reads for the driver.</summary>
    internal void Read(int offset, Span<byte> data)
    {
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            lock (_gate)
            {
                _bytes.AsSpan(offset, Math.Min(data.Length, Length - offset)).CopyTo(data);
            }
        }
    }

    // A feature whose field is of no use is not offered: drivers divide by it, or take 0 for a limit.
    private static ulong Offered(ulong features, ReadOnlySpan<byte> config)
    {
        features &= Word(config, SizeMaxAt) < LeastSegment ? ~SizeMax : ulong.MaxValue;
        features &= Word(config, SegMaxAt) == 0 ? ~BlkFeatures.SegMax : ulong.MaxValue;
        features &= Word(config, DiscardSectorsAt) == 0 || Word(config, DiscardSegmentsAt) == 0 ? ~BlkFeatures.Discard : ulong.MaxValue;
        features &= Word(config, ZeroSectorsAt) == 0 || Word(config, ZeroSegmentsAt) == 0 ? ~BlkFeatures.WriteZeroes : ulong.MaxValue;
        return features;
    }

    private void Check(ReadOnlySpan<byte> config)
    {
        ulong sectors = BinaryPrimitives.ReadUInt64LittleEndian(config);
        if (sectors > MostSectors)
        {
            throw new VhostUserException($"its disk has {sectors} sectors, at most {MostSectors} are possible");
        }

        uint block = Word(config, BlockSizeAt);
        if ((Features & BlkFeatures.BlockSize) != 0 && (block is < 512 or > 4096 || !BitOperations.IsPow2(block)))
        {
            throw new VhostUserException($"its disk has blocks of {block} bytes, expected a power of two from 512 to 4096");
        }

        if (Offered(Features, config) != Features)
        {
            throw new VhostUserException("its configuration lost a limit that the driver was told of");
        }
    }

    private byte[] Bounded(ReadOnlySpan<byte> config)
    {
        byte[] bytes = config.ToArray();
        uint segments = Math.Min(Word(config, SegMaxAt), (uint)(_queueSize - 2)); // a chain of the queue's size, less header and status
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(SegMaxAt), segments);
        bytes[PhysicalAt] = bytes[PhysicalAt] <= MostExponent ? bytes[PhysicalAt] : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(QueuesAt), (ushort)_queues);
        return bytes;
    }

    private static uint Word(ReadOnlySpan<byte> config, int at) => BinaryPrimitives.ReadUInt32LittleEndian(config[at..]);
}
