using System.Security.Cryptography;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Reads those extents of a disk that may differ from a point, and stores those whose hashes do. What its images say are zeros is not read.
/// For one thread.
/// </summary>
/// <param name="chain">The disk.</param>
/// <param name="tree">Its hashes at the point; null: all zeros.</param>
/// <param name="writer">Where what differs goes.</param>
/// <param name="update">Gets the new hashes.</param>
/// <param name="pace">Limits the rate.</param>
internal sealed class CutScan(ImageChain chain, TreeFile? tree, DeltaWriter writer, TreeUpdate update, BackupPace pace)
{
    private readonly byte[] _content = new byte[DeltaFormat.ExtentBytes];
    private readonly byte[] _leaf = new byte[DeltaFormat.HashBytes], _before = new byte[DeltaFormat.HashBytes];

    /// <summary>Does so for a range of extents; ranges come in the order of the disk.</summary>
    /// <exception cref="BlockException">The disk cannot be read, its hashes are damaged, or the delta cannot be written.</exception>
    internal void Run(ExtentRange range)
    {
        ulong end = Math.Min(range.End, DeltaFormat.ExtentsOf(chain.Size));
        for (ulong at = range.First; at < end;)
        {
            ulong offset = at * DeltaFormat.ExtentBytes, left = Math.Min(end * DeltaFormat.ExtentBytes, chain.Size) - offset;
            ulong zeros = ZerosAt(offset, left);
            if (zeros > 0)
            {
                Clear(at, at + zeros);
                pace.Advance(Math.Min(zeros * DeltaFormat.ExtentBytes, left), read: 0);
                at += zeros;
                continue;
            }

            int take = (int)Math.Min(DeltaFormat.ExtentBytes, left);
            chain.Read(_content.AsSpan(0, take), offset);
            _content.AsSpan(take).Clear();
            Take(at++);
            pace.Advance((ulong)take, (ulong)take);
        }
    }

    // Whole extents from there on that read as zeros without being looked at.
    private ulong ZerosAt(ulong offset, ulong left)
    {
        DiskExtent mapped = chain.Map(offset, left);
        return mapped.Kind is not (DiskExtentKind.Unallocated or DiskExtentKind.Zero) ? 0
            : mapped.Length == left ? DeltaFormat.ExtentsOf(left)
            : mapped.Length / DeltaFormat.ExtentBytes;
    }

    private void Clear(ulong first, ulong end)
    {
        for (ulong at = first; tree is not null && (at = tree.NextData(at, end)) < Math.Min(end, tree.Extents); at++)
        {
            Store(at, [], DeltaFormat.ZeroLeaf);
        }
    }

    private void Take(ulong extent)
    {
        if (!_content.AsSpan().ContainsAnyExcept((byte)0))
        {
            Clear(extent, extent + 1);
            return;
        }

        _ = SHA256.HashData(_content, _leaf);
        if (tree is null || tree.ReadLeaves(extent, _before) == 0 || !_before.AsSpan().SequenceEqual(_leaf))
        {
            Store(extent, _content, _leaf);
        }
    }

    private void Store(ulong extent, ReadOnlySpan<byte> content, ReadOnlySpan<byte> leaf)
    {
        writer.Add(extent, content, leaf);
        update.Set(extent, leaf);
    }
}
