using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>A qcow2 image in a chain, read through one L2 table and one decompressed cluster at a time. For one thread.</summary>
internal sealed class Qcow2Layer : IDiskLayer
{
    private readonly IImageFile _file;
    private readonly bool _isOwner;
    private readonly ClusterCodec _codec;
    private readonly byte[] _l2, _l1Entry = new byte[8];
    private byte[] _packed = [], _cluster = [];
    private ulong _table = ulong.MaxValue; // number of the table in _l2
    private bool _hasTable;
    private ulong _clusterAt = ulong.MaxValue; // guest offset of what is in _cluster

    /// <summary>Reads a file, and closes it at the end when it is the owner.</summary>
    internal Qcow2Layer(IImageFile file, bool isOwner)
    {
        (_file, _isOwner) = (file, isOwner);
        Header = ImageFiles.ReadHeader(file);
        _codec = new ClusterCodec(Header.Compression);
        _l2 = new byte[Header.Geometry.ClusterSize];
    }

    /// <inheritdoc/>
    public string Path => _file.Path;

    /// <inheritdoc/>
    public string Format => "qcow2";

    /// <inheritdoc/>
    public ulong Size => Header.DiskSize;

    /// <inheritdoc/>
    public ulong FileBytes => _file.Length;

    /// <inheritdoc/>
    public Qcow2Header Header { get; }

    private Qcow2Geometry Image => Header.Geometry;

    /// <inheritdoc/>
    public DiskExtent Map(ulong offset, ulong most)
    {
        LoadTable(offset / Image.L2Coverage);
        ulong end = offset + Math.Min(most, Size - offset);
        if (!_hasTable)
        {
            ulong tableEnd = ((offset / Image.L2Coverage) + 1) * Image.L2Coverage;
            return new DiskExtent(offset, Math.Min(end, tableEnd) - offset, DiskExtentKind.Unallocated, 0, 0);
        }

        ulong inCluster = Image.InCluster(offset), left = Math.Min(end - offset, Image.ClusterSize - inCluster);
        int index = (int)((offset >> Image.ClusterBits) & ((1ul << Image.L2Bits) - 1)) * Image.L2EntrySize;
        L2Entry entry = L2EntryBytes.Read(_l2, index, Image);
        switch (entry.KindIn(Image))
        {
            case ClusterKind.Unallocated:
                return new DiskExtent(offset, left, DiskExtentKind.Unallocated, 0, 0);
            case ClusterKind.Compressed:
                return new DiskExtent(offset, left, DiskExtentKind.Compressed, 0, entry.CompressedRange(Image).Offset);
            case ClusterKind.Zero when !Image.ExtendedL2:
                return new DiskExtent(offset, left, DiskExtentKind.Zero, 0, 0);
            case ClusterKind.Data when !Image.ExtendedL2:
                return Data(offset, left, entry.HostOffset + inCluster);
            case ClusterKind.Data or ClusterKind.Zero:
                return Part(entry, offset, left);
            default:
                throw Damaged(offset, $"has an L2 entry (0x{entry.Bits:x16}) that the format does not allow");
        }
    }

    /// <inheritdoc/>
    public void Read(DiskExtent extent, Span<byte> destination)
    {
        if (extent.Kind == DiskExtentKind.Data)
        {
            _file.Read(destination, extent.HostOffset);
            return;
        }

        ulong start = extent.Start - Image.InCluster(extent.Start);
        if (_clusterAt != start)
        {
            Decompress(start);
        }

        _cluster.AsSpan((int)Image.InCluster(extent.Start), destination.Length).CopyTo(destination);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _codec.Dispose();
        if (_isOwner)
        {
            _file.Dispose();
        }
    }

    // The parts of a cluster with an extended entry that are as the first one is.
    private DiskExtent Part(L2Entry entry, ulong offset, ulong left)
    {
        int part = (int)(Image.InCluster(offset) >> Image.SubclusterBits);
        uint data = entry.Allocated >> part, zeros = entry.Zeros >> part;
        uint same = (data & 1) != 0 ? data : (zeros & 1) != 0 ? zeros : ~(data | zeros);
        ulong parts = (ulong)Math.Min(BitOperations.TrailingZeroCount(~same), 32 - part);
        ulong partEnd = ((ulong)part + parts) << Image.SubclusterBits;
        ulong length = Math.Min(left, partEnd - Image.InCluster(offset));
        return (data & 1) != 0 ? Data(offset, length, entry.HostOffset + Image.InCluster(offset))
            : new DiskExtent(offset, length, (zeros & 1) != 0 ? DiskExtentKind.Zero : DiskExtentKind.Unallocated, 0, 0);
    }

    private DiskExtent Data(ulong offset, ulong length, ulong host) => host < _file.Length
        ? new DiskExtent(offset, length, DiskExtentKind.Data, 0, host)
        : throw Damaged(offset, $"has its data at {host}, behind the end of its file");

    private void LoadTable(ulong table)
    {
        if (table == _table)
        {
            return;
        }

        _table = ulong.MaxValue;
        _file.Read(_l1Entry, Header.L1Offset + (table * 8));
        L1Entry entry = new(BinaryPrimitives.ReadUInt64BigEndian(_l1Entry));
        if (!entry.IsValidIn(Image) || entry.L2Offset >= _file.Length)
        {
            throw Damaged(table * Image.L2Coverage, $"has an L1 entry (0x{entry.Bits:x16}) that cannot be");
        }

        _hasTable = entry.L2Offset != 0;
        if (_hasTable)
        {
            _file.Read(_l2, entry.L2Offset);
        }

        _table = table;
    }

    private void Decompress(ulong start)
    {
        LoadTable(start / Image.L2Coverage);
        int index = (int)((start >> Image.ClusterBits) & ((1ul << Image.L2Bits) - 1)) * Image.L2EntrySize;
        (ulong offset, uint length) = L2EntryBytes.Read(_l2, index, Image).CompressedRange(Image);
        if (offset >= _file.Length)
        {
            throw Damaged(start, $"has compressed bytes at {offset}, behind the end of its file");
        }

        // More than a cluster and a few sectors is never compressed data.
        length = Math.Min(length, Image.ClusterSize * 2);
        _packed = _packed.Length >= length ? _packed : new byte[length];
        _cluster = _cluster.Length > 0 ? _cluster : new byte[Image.ClusterSize];
        _file.Read(_packed.AsSpan(0, (int)length), offset);
        _clusterAt = ulong.MaxValue;
        if (!_codec.TryDecompress(_packed, (int)length, _cluster))
        {
            throw Damaged(start, "has compressed bytes that cannot be decompressed");
        }

        _clusterAt = start;
    }

    private BlockException Damaged(ulong guest, string what) =>
        new(BlockErrorKind.NotADisk, $"disk {Path} {what} (byte {guest} of the disk); see vmmctl disk check {Path}")
        { Path = Path, Offset = (long)guest };
}
