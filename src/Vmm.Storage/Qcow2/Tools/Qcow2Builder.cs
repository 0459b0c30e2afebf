using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Writes a new image from its first to its last cluster. Everything is appended, refcounts are counted meanwhile and written at the end,
/// the header last: until then the file is no image. For one thread.
/// </summary>
internal sealed class Qcow2Builder
{
    private readonly IImageFile _file;
    private readonly Qcow2Header _header;
    private readonly ClusterCounts _counts = new();
    private readonly byte[] _l1;
    private readonly byte[] _l2;
    private ulong _next; // the next free cluster
    private long _table = -1; // the L1 entry whose L2 table is in _l2
    private ulong _packed; // where the next compressed bytes may go; 0 is nowhere

    /// <summary>Begins an image in an empty file.</summary>
    /// <exception cref="BlockException">There is no such image.</exception>
    internal Qcow2Builder(IImageFile file, Qcow2CreateOptions options)
    {
        _file = file;
        _header = options.ToHeader(file.Path);
        Qcow2Geometry image = _header.Geometry;
        ulong entries = image.L1EntriesFor(options.DiskSize);
        if (entries * 8 > Qcow2Header.MaxL1Bytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize,
                $"a disk of {options.DiskSize} bytes is too large for clusters of {image.ClusterSize} bytes; make them larger")
            { Path = file.Path };
        }

        _l1 = new byte[entries * 8];
        _l2 = new byte[image.ClusterSize];
        _header = _header with { L1Size = (uint)entries, L1Offset = image.ClusterSize };
        _next = 1 + image.ClustersFor(entries * 8);
        _counts.AddRange(0, _next);
    }

    internal Qcow2Geometry Geometry => _header.Geometry;

    /// <summary>Adds a cluster with payload. Clusters come in the order of the disk.</summary>
    internal void AddData(ulong guest, ReadOnlySpan<byte> cluster)
    {
        ulong offset = Allocate();
        _file.Write(cluster, offset);
        Map(guest, L2Entry.Data(Geometry, offset));
    }

    /// <summary>Adds a cluster that reads as zeros, whatever is behind it.</summary>
    internal void AddZeros(ulong guest) => Map(guest, L2Entry.PlainZero(Geometry));

    /// <summary>Adds a compressed cluster. Its bytes follow those of the last one where that can be.</summary>
    internal void AddCompressed(ulong guest, ReadOnlySpan<byte> bytes)
    {
        ulong cluster = Geometry.ClusterOf(_packed);
        bool follows = _packed != 0 && _counts[cluster] < Geometry.MaxRefcount
            && (Geometry.InCluster(_packed) + (uint)bytes.Length <= Geometry.ClusterSize || _next == cluster + 1);
        ulong at = follows ? _packed : Allocate();
        ulong last = Geometry.ClusterOf(at + (uint)bytes.Length - 1);
        if (follows)
        {
            _counts.Add(cluster);
        }

        if (last > Geometry.ClusterOf(at))
        {
            _ = Allocate(); // it is the next one
        }

        _file.Write(bytes, at);
        _packed = Geometry.IsAligned(at + (uint)bytes.Length) ? 0 : at + (uint)bytes.Length;
        Map(guest, L2Entry.Compressed(Geometry, at, (uint)bytes.Length));
    }

    /// <summary>Writes the tables, makes all of it stable, then the header, and makes that stable.</summary>
    internal Qcow2Header Finish(ToolProgress progress)
    {
        StoreTable();
        _file.Write(_l1, _header.L1Offset);
        (ulong offset, uint clusters) = RefcountWriter.Write(_file, Geometry, _counts, _next, progress);
        if (clusters << Geometry.ClusterBits > Qcow2Header.MaxRefcountTableBytes)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {_file.Path} needs larger clusters or smaller refcounts")
            { Path = _file.Path };
        }

        Qcow2Header header = _header with { RefcountTableOffset = offset, RefcountTableClusters = clusters };
        _file.Grow(_counts.End << Geometry.ClusterBits);
        _file.Flush();
        _file.Write(header.Encode(), 0);
        _file.Flush();
        return header;
    }

    private ulong Allocate()
    {
        _counts.Add(_next);
        return _next++ << Geometry.ClusterBits;
    }

    private void Map(ulong guest, L2Entry entry)
    {
        long table = (long)(guest / Geometry.L2Coverage);
        if (table != _table)
        {
            StoreTable();
            _table = table;
        }

        int index = (int)((guest >> Geometry.ClusterBits) & ((1ul << Geometry.L2Bits) - 1)) * Geometry.L2EntrySize;
        BinaryPrimitives.WriteUInt64BigEndian(_l2.AsSpan(index), entry.Bits);
        if (Geometry.ExtendedL2)
        {
            BinaryPrimitives.WriteUInt64BigEndian(_l2.AsSpan(index + 8), entry.Bitmap);
        }
    }

    private void StoreTable()
    {
        if (_table < 0)
        {
            return;
        }

        ulong offset = Allocate();
        _file.Write(_l2, offset);
        BinaryPrimitives.WriteUInt64BigEndian(_l1.AsSpan((int)_table * 8), L1Entry.Of(offset).Bits);
        Array.Clear(_l2);
        _table = -1;
    }
}
