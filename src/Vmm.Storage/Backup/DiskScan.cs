using System.Security.Cryptography;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>Reads a disk from its beginning to its end and stores what differs from a point. For one thread.</summary>
internal sealed class DiskScan(ImageChain chain, PointDisk? parent, DeltaWriter writer, DiskTree tree, BackupPace pace)
{
    private readonly byte[] _content = new byte[DeltaFormat.ExtentBytes], _leaf = new byte[DeltaFormat.HashBytes];
    private bool _hasParent;

    /// <summary>Does so.</summary>
    /// <exception cref="BlockException">The disk cannot be read, or the file cannot be written.</exception>
    internal void Run()
    {
        _hasParent = parent?.MoveNext(0) ?? false;
        for (ulong at = 0; at < chain.Size;)
        {
            DiskExtent mapped = chain.Map(at, chain.Size - at);
            bool isHole = mapped.Kind is DiskExtentKind.Unallocated or DiskExtentKind.Zero;
            ulong whole = !isHole ? 0 : at + mapped.Length == chain.Size ? mapped.Length
                : mapped.Length / DeltaFormat.ExtentBytes * DeltaFormat.ExtentBytes;
            if (whole > 0)
            {
                Clear(DeltaFormat.ExtentsOf(at + whole));
                pace.Advance(whole, read: 0);
                at += whole;
            }
            else
            {
                int take = (int)Math.Min(DeltaFormat.ExtentBytes, chain.Size - at);
                chain.Read(_content.AsSpan(0, take), at);
                _content.AsSpan(take).Clear();
                Take(at / DeltaFormat.ExtentBytes);
                pace.Advance((ulong)take, (ulong)take);
                at += (ulong)take;
            }
        }
    }

    // Everything before this extent reads as zeros that was not looked at yet.
    private void Clear(ulong end)
    {
        while (_hasParent && parent!.Current.Extent < end)
        {
            ulong extent = parent.Current.Extent;
            writer.Add(extent, [], DeltaFormat.ZeroLeaf);
            _hasParent = parent.MoveNext(extent + 1);
        }
    }

    private void Take(ulong extent)
    {
        if (!_content.AsSpan().ContainsAnyExcept((byte)0))
        {
            Clear(extent + 1);
            return;
        }

        _ = SHA256.HashData(_content, _leaf);
        bool inParent = _hasParent && parent!.Current.Extent == extent;
        if (!inParent || !parent!.Current.Leaf.Span.SequenceEqual(_leaf))
        {
            writer.Add(extent, _content, _leaf);
        }

        tree.Add(extent, _leaf);
        _hasParent = inParent ? parent!.MoveNext(extent + 1) : _hasParent;
    }
}
