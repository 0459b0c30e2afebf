using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>
/// What becomes of a tree with other leaves: its new root, and the file itself when it is to be written. Leaves come in the order of the
/// disk. In memory are the nodes, and the leaves of one of them. For one thread.
/// </summary>
/// <param name="tree">The tree as it is; null: all zeros.</param>
/// <param name="diskBytes">Bytes of the disk afterwards.</param>
/// <param name="writes">The file is written.</param>
internal sealed class TreeUpdate(TreeFile? tree, ulong diskBytes, bool writes)
{
    private readonly byte[] _nodes = NodesOf(tree, diskBytes);
    private readonly byte[] _page = new byte[TreeFormat.PageBytes], _scratch = new byte[TreeFormat.PageBytes];
    private int _node = -1;

    /// <summary>An extent has another hash.</summary>
    /// <exception cref="BlockException">The tree is damaged there, or the host failed.</exception>
    internal void Set(ulong extent, ReadOnlySpan<byte> leaf)
    {
        int node = (int)(extent / TreeFormat.LeavesOfNode);
        if (node != _node)
        {
            EndNode();
            _node = node;
            Load();
        }

        Span<byte> slot = _page.AsSpan((int)(extent % TreeFormat.LeavesOfNode) * DeltaFormat.HashBytes, DeltaFormat.HashBytes);
        if (leaf.SequenceEqual(DeltaFormat.ZeroLeaf))
        {
            slot.Clear();
        }
        else
        {
            leaf.CopyTo(slot);
        }
    }

    /// <summary>The root with all that was set.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal byte[] Finish()
    {
        EndNode();
        return TreeFormat.RootOf(diskBytes, _nodes);
    }

    private static byte[] NodesOf(TreeFile? tree, ulong diskBytes)
    {
        byte[] nodes = new byte[TreeFormat.NodesOf(diskBytes) * DeltaFormat.HashBytes];
        tree?.Nodes.CopyTo(nodes);
        return nodes;
    }

    private void Load()
    {
        if (tree is null || _node * DeltaFormat.HashBytes >= tree.Nodes.Length)
        {
            _page.AsSpan().Clear();
        }
        else
        {
            tree.ReadPage(_node, _page, _scratch);
        }
    }

    private void EndNode()
    {
        if (_node < 0)
        {
            return;
        }

        Span<byte> slot = _nodes.AsSpan(_node * DeltaFormat.HashBytes, DeltaFormat.HashBytes);
        if (_page.AsSpan().ContainsAnyExcept((byte)0))
        {
            TreeFormat.HashOf(_page, _scratch).CopyTo(slot);
        }
        else
        {
            slot.Clear();
        }

        if (writes)
        {
            tree!.WritePage(_node, _page, slot);
        }

        _node = -1;
    }
}
