namespace Vmm.Storage.Qcow2;

/// <summary>The L1 table of one image of a chain, and how its L2 tables are cut into slices. Under the disk's lock.</summary>
internal sealed class ImageTables
{
    private ulong[] _l1;
    private readonly int _sliceEntryBits;

    /// <param name="layer">Number in the chain, 0 is the top.</param>
    /// <param name="header">The image's header.</param>
    /// <param name="l1">Its L1 table, in the host's byte order.</param>
    internal ImageTables(int layer, Qcow2Header header, ulong[] l1)
    {
        Layer = layer;
        Geometry = header.Geometry;
        _l1 = l1;
        SliceBytes = (int)Math.Min(L2Cache.SliceBytes, Geometry.ClusterSize);
        _sliceEntryBits = System.Numerics.BitOperations.Log2((uint)(SliceBytes / Geometry.L2EntrySize));
    }

    internal int Layer { get; }

    internal Qcow2Geometry Geometry { get; }

    /// <summary>Bytes of a slice of this image.</summary>
    internal int SliceBytes { get; }

    /// <summary>The L1 table.</summary>
    internal ReadOnlySpan<ulong> L1 => _l1;

    /// <summary>Key of the slice that maps a cluster of the disk.</summary>
    internal ulong KeyOf(ulong cluster) => L2Cache.KeyOf(Layer, cluster >> _sliceEntryBits);

    /// <summary>Number of a cluster's entry within its slice.</summary>
    internal int IndexOf(ulong cluster) => (int)(cluster & ((1ul << _sliceEntryBits) - 1));

    /// <summary>The first cluster of the slice behind that of <paramref name="cluster"/>.</summary>
    internal ulong SliceEnd(ulong cluster) => ((cluster >> _sliceEntryBits) + 1) << _sliceEntryBits;

    /// <summary>Number of the L1 entry that maps a cluster of the disk.</summary>
    internal int L1IndexOf(ulong cluster) => (int)(cluster >> Geometry.L2Bits);

    /// <summary>The L1 entry of a cluster.</summary>
    internal L1Entry TableOf(ulong cluster) => new(_l1[L1IndexOf(cluster)]);

    /// <summary>The first cluster behind those that the L2 table of <paramref name="cluster"/> maps.</summary>
    internal ulong TableEnd(ulong cluster) => ((cluster >> Geometry.L2Bits) + 1) << Geometry.L2Bits;

    /// <summary>Where in the file a slice lies; its table exists.</summary>
    internal ulong OffsetOf(ulong key)
    {
        ulong slice = L2Cache.SliceOf(key);
        int perTable = Geometry.L2Bits - _sliceEntryBits;
        ulong table = new L1Entry(_l1[slice >> perTable]).L2Offset;
        return table + ((slice & ((1ul << perTable) - 1)) * (uint)SliceBytes);
    }

    /// <summary>The table has more entries, which map nothing.</summary>
    internal void Enlarge(uint entries) => Array.Resize(ref _l1, (int)entries);

    /// <summary>Gives a part of the disk its L2 table.</summary>
    internal void SetTable(int index, ulong offset) => _l1[index] = L1Entry.Of(offset).Bits;
}
