using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Vmm.Storage.Backup;

/// <summary>
/// The hash tree of a whole disk. A leaf is the SHA-256 of an extent, a node that of 4096 leaves, the root that of the disk's size and all
/// nodes; their lengths differ, so none can stand for another. Leaves come in the order of the disk, those of zeros may be left out: memory
/// does not grow with the disk. For one thread.
/// </summary>
internal sealed class DiskTree : IDisposable
{
    private const int LeavesOfNode = 4096;

    private static readonly byte[] s_zeroLeaves = ZeroLeaves();
    private static readonly byte[] s_zeroNode = SHA256.HashData(s_zeroLeaves);

    private readonly IncrementalHash _root = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly byte[] _leaves = (byte[])s_zeroLeaves.Clone();
    private readonly ulong _nodes;
    private ulong _node;
    private bool _isZero = true;

    /// <summary>Begins the tree of a disk.</summary>
    internal DiskTree(ulong diskBytes)
    {
        _nodes = (DeltaFormat.ExtentsOf(diskBytes) + LeavesOfNode - 1) / LeavesOfNode;
        Span<byte> size = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(size, diskBytes);
        _root.AppendData(size);
    }

    /// <summary>Takes the next leaf that is not one of zeros.</summary>
    internal void Add(ulong extent, ReadOnlySpan<byte> leaf)
    {
        while (_node < extent / LeavesOfNode)
        {
            EndNode();
        }

        leaf.CopyTo(_leaves.AsSpan((int)(extent % LeavesOfNode) * DeltaFormat.HashBytes));
        _isZero = false;
    }

    /// <summary>The root.</summary>
    internal byte[] Finish()
    {
        while (_node < _nodes)
        {
            EndNode();
        }

        return _root.GetHashAndReset();
    }

    /// <inheritdoc/>
    public void Dispose() => _root.Dispose();

    private void EndNode()
    {
        _root.AppendData(_isZero ? s_zeroNode : SHA256.HashData(_leaves));
        if (!_isZero)
        {
            s_zeroLeaves.CopyTo(_leaves, 0);
        }

        _isZero = true;
        _node++;
    }

    private static byte[] ZeroLeaves()
    {
        byte[] leaves = new byte[LeavesOfNode * DeltaFormat.HashBytes];
        for (int at = 0; at < leaves.Length; at += DeltaFormat.HashBytes)
        {
            DeltaFormat.ZeroLeaf.CopyTo(leaves, at);
        }

        return leaves;
    }
}
