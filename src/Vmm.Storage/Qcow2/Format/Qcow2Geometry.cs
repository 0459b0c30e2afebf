using System.Numerics;

namespace Vmm.Storage.Qcow2;

/// <summary>How an image counts: sizes of clusters, tables and refcounts, all powers of two (qcow2.rst, "Header").</summary>
/// <param name="ClusterBits">log2 of a cluster in bytes, 9 to 21.</param>
/// <param name="RefcountOrder">log2 of a refcount in bits, 0 to 6.</param>
/// <param name="ExtendedL2">L2 entries have 16 bytes and a bitmap of 32 subclusters.</param>
public readonly record struct Qcow2Geometry(int ClusterBits, int RefcountOrder, bool ExtendedL2)
{
    /// <summary>Smallest and largest cluster, as log2 of bytes (the format's own bounds).</summary>
    public const int MinClusterBits = 9, MaxClusterBits = 21;

    /// <summary>Subclusters of a cluster in an image with extended L2 entries.</summary>
    public const int ExtendedSubclusters = 32;

    /// <summary>Bytes of a cluster.</summary>
    public uint ClusterSize => 1u << ClusterBits;

    /// <summary>Bytes of an L2 entry.</summary>
    public int L2EntrySize => ExtendedL2 ? 16 : 8;

    /// <summary>log2 of the entries of an L2 table, which is one cluster.</summary>
    public int L2Bits => ClusterBits - (ExtendedL2 ? 4 : 3);

    /// <summary>Guest bytes that one L2 table maps.</summary>
    public ulong L2Coverage => 1ul << (ClusterBits + L2Bits);

    /// <summary>log2 of the refcounts of a refcount block, which is one cluster.</summary>
    public int RefcountBlockBits => ClusterBits + 3 - RefcountOrder;

    /// <summary>Largest refcount that can be written.</summary>
    public ulong MaxRefcount => RefcountOrder == 6 ? ulong.MaxValue : (1ul << (1 << RefcountOrder)) - 1;

    /// <summary>Parts of a cluster whose state is told apart: 32 with extended L2 entries, else the cluster as a whole.</summary>
    public int Subclusters => ExtendedL2 ? ExtendedSubclusters : 1;

    /// <summary>log2 of the bytes of a subcluster.</summary>
    public int SubclusterBits => ClusterBits - BitOperations.Log2((uint)Subclusters);

    /// <summary>Number of the cluster that holds a byte of the disk or file.</summary>
    public ulong ClusterOf(ulong offset) => offset >> ClusterBits;

    /// <summary>Offset within its cluster.</summary>
    public uint InCluster(ulong offset) => (uint)offset & (ClusterSize - 1);

    /// <summary>Clusters that so many bytes need. <paramref name="bytes"/> is at most 2^63.</summary>
    public ulong ClustersFor(ulong bytes) => (bytes + ClusterSize - 1) >> ClusterBits;

    /// <summary>L1 entries that a disk of so many bytes needs.</summary>
    public ulong L1EntriesFor(ulong bytes) => (bytes + L2Coverage - 1) / L2Coverage;

    /// <summary>True when an offset into the file is that of a whole cluster.</summary>
    public bool IsAligned(ulong offset) => (offset & (ClusterSize - 1)) == 0;
}
