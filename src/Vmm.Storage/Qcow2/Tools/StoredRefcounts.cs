using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// The refcounts as an image has them. Reads and writes pieces of blocks, of which it keeps some. What no sound block counts is 0.
/// </summary>
internal sealed class StoredRefcounts
{
    /// <summary>Bytes that are read at once; never more than a cluster.</summary>
    private const int PieceBytes = 4096, Pieces = 64;

    private readonly IImageFile _file;
    private readonly Qcow2Geometry _image;
    private readonly byte[] _table;
    private readonly ulong[] _keys = new ulong[Pieces];
    private readonly byte[][] _pieces = new byte[Pieces][];

    internal StoredRefcounts(IImageFile file, Qcow2Header header)
    {
        _file = file;
        _image = header.Geometry;
        _table = new byte[(ulong)header.RefcountTableClusters << _image.ClusterBits];
        file.Read(_table, header.RefcountTableOffset);
        PieceLength = (int)Math.Min(PieceBytes, _image.ClusterSize);
        PieceClusters = (ulong)PieceLength * 8 >> _image.RefcountOrder;
    }

    /// <summary>The sizes of the image.</summary>
    internal Qcow2Geometry Geometry => _image;

    /// <summary>Clusters that one piece counts.</summary>
    internal ulong PieceClusters { get; }

    private int PieceLength { get; }

    /// <summary>The block that counts a cluster; 0 when there is none, or none that can be read.</summary>
    internal ulong BlockOf(ulong cluster)
    {
        ulong index = cluster >> _image.RefcountBlockBits;
        ulong bits = index >= (ulong)_table.Length / 8 ? 0 : BinaryPrimitives.ReadUInt64BigEndian(_table.AsSpan((int)index * 8));
        return _image.IsAligned(bits) && bits < _file.Length ? bits : 0;
    }

    /// <summary>The refcount of a cluster.</summary>
    internal ulong Get(ulong cluster) => BlockOf(cluster) is 0 ? 0
        : Refcounts.Get(Piece(cluster, out int index), index, _image.RefcountOrder);

    /// <summary>Writes the refcount of a cluster that has a block. Does not flush.</summary>
    internal void Set(ulong cluster, ulong value)
    {
        byte[] piece = Piece(cluster, out int index);
        Refcounts.Set(piece, index, _image.RefcountOrder, value);
        int at = index << _image.RefcountOrder >> 3, bytes = Math.Max(1, 1 << _image.RefcountOrder >> 3);
        _file.Write(piece.AsSpan(at, bytes), PieceOffset(cluster) + (uint)at);
    }

    /// <summary>True when all clusters that the piece of this one counts have refcount 0.</summary>
    internal bool IsPieceEmpty(ulong cluster) => BlockOf(cluster) == 0 || Piece(cluster, out _).AsSpan().IndexOfAnyExcept((byte)0) < 0;

    private ulong PieceOffset(ulong cluster)
    {
        ulong inBlock = cluster & ((1ul << _image.RefcountBlockBits) - 1);
        return BlockOf(cluster) + (inBlock / PieceClusters * (uint)PieceLength);
    }

    private byte[] Piece(ulong cluster, out int index)
    {
        index = (int)(cluster % PieceClusters);
        ulong offset = PieceOffset(cluster);
        int slot = (int)(offset / (uint)PieceLength % Pieces);
        if (_pieces[slot] is null || _keys[slot] != offset)
        {
            _pieces[slot] ??= new byte[PieceLength];
            _file.Read(_pieces[slot], offset);
            _keys[slot] = offset;
        }

        return _pieces[slot];
    }
}
