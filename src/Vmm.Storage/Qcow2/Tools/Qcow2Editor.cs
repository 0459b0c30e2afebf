using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Changes an image that no VM uses, all at once: new clusters and changed tables are appended to the file, and <see cref="Commit"/> makes
/// them the image's with one sector write. Until then the image is as it was. For one thread.
/// </summary>
internal sealed class Qcow2Editor
{
    private readonly IImageFile _file;
    private readonly byte[] _l2;
    private readonly HashSet<int> _moved = []; // L1 entries whose L2 table is an appended one
    private Qcow2Header _header;
    private byte[] _l1;
    private int _table = -1; // the L1 entry whose table is in _l2
    private bool _changed;
    private ulong _next; // the next cluster behind the file

    /// <summary>Begins with an image as it is.</summary>
    /// <exception cref="BlockException">It is marked dirty or corrupt, or its tables are damaged.</exception>
    internal Qcow2Editor(IImageFile file, Qcow2Header header, ToolProgress progress)
    {
        ImageFiles.RequireSound(header, file.Path);
        CheckReport report = Qcow2Check.Run(file, header, progress);
        if (report.Corruptions > 0)
        {
            throw new BlockException(
                BlockErrorKind.NotADisk,
                $"disk {file.Path} has {report.Corruptions} corruptions and is not changed; mend it first: vmmctl disk check --repair all")
            { Path = file.Path };
        }

        (_file, _header) = (file, header);
        _l1 = new byte[header.L1Size * 8ul];
        file.Read(_l1, header.L1Offset);
        _l2 = new byte[header.Geometry.ClusterSize];
        _next = header.Geometry.ClustersFor(file.Length);
    }

    private Qcow2Geometry Image => _header.Geometry;

    /// <summary>Another size of the disk. What it maps behind its end then has to be gone already.</summary>
    internal void Resize(ulong bytes)
    {
        ulong entries = Image.L1EntriesFor(bytes);
        if (entries * 8 > Qcow2Header.MaxL1Bytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {_file.Path}: {bytes} bytes are too much for clusters of {Image.ClusterSize} bytes")
            { Path = _file.Path };
        }

        Store();
        _table = -1;
        Array.Resize(ref _l1, (int)entries * 8);
        _header = _header with { DiskSize = bytes };
    }

    /// <summary>The entry of the cluster that holds a byte of the disk.</summary>
    internal L2Entry Get(ulong guest)
    {
        Load(guest);
        return L2EntryBytes.Read(_l2, Index(guest), Image);
    }

    /// <summary>Puts another entry there.</summary>
    internal void Set(ulong guest, L2Entry entry)
    {
        Load(guest);
        L2EntryBytes.Write(_l2, Index(guest), Image, entry);
        _changed = true;
    }

    /// <summary>Unmaps everything from a byte of the disk on, which is the beginning of a cluster.</summary>
    internal void ClearFrom(ulong guest)
    {
        foreach ((ulong at, L2Entry entry) in Entries(guest))
        {
            if (entry != default)
            {
                Set(at, default);
            }
        }
    }

    /// <summary>The first byte from there on that has data of this image; null when there is none.</summary>
    internal ulong? FirstMapped(ulong guest)
    {
        foreach ((ulong at, L2Entry entry) in Entries(guest))
        {
            if (entry.KindIn(Image) is ClusterKind.Data or ClusterKind.Compressed)
            {
                return at;
            }
        }

        return null;
    }

    /// <summary>Appends a cluster with these bytes.</summary>
    internal ulong Append(ReadOnlySpan<byte> cluster)
    {
        ulong offset = _next++ << Image.ClusterBits;
        _file.Write(cluster, offset);
        return offset;
    }

    /// <summary>Makes it the image.</summary>
    /// <returns>The new header.</returns>
    internal Qcow2Header Commit(ToolProgress progress)
    {
        Store();
        ulong offset = _next << Image.ClusterBits;
        _file.Write(_l1, offset);
        _file.Grow((_next + Image.ClustersFor((uint)_l1.Length)) << Image.ClusterBits);
        _file.Flush();
        return TableSwitch.Commit(_file, _header with { L1Offset = offset, L1Size = (uint)_l1.Length / 8 }, null, progress);
    }

    // The entries of all L2 tables from a byte of the disk on, whether or not the disk goes so far.
    private IEnumerable<(ulong Guest, L2Entry Entry)> Entries(ulong guest)
    {
        for (int table = (int)(guest / Image.L2Coverage); table < _l1.Length / 8; table++)
        {
            if (Entry(table).L2Offset == 0)
            {
                continue;
            }

            ulong first = (ulong)table * Image.L2Coverage;
            for (ulong at = Math.Max(guest, first); at < first + Image.L2Coverage; at += Image.ClusterSize)
            {
                yield return (at, Get(at));
            }
        }
    }

    private int Index(ulong guest) => (int)((guest >> Image.ClusterBits) & ((1ul << Image.L2Bits) - 1)) * Image.L2EntrySize;

    private void Load(ulong guest)
    {
        int table = (int)(guest / Image.L2Coverage);
        if (table == _table)
        {
            return;
        }

        Store();
        _table = table;
        ulong offset = Entry(table).L2Offset;
        if (offset == 0)
        {
            Array.Clear(_l2);
        }
        else
        {
            _file.Read(_l2, offset);
        }
    }

    // A table of the old image stays where it is; one of the new image may be written again.
    private void Store()
    {
        if (!_changed)
        {
            return;
        }

        if (_moved.Add(_table))
        {
            BinaryPrimitives.WriteUInt64BigEndian(_l1.AsSpan(_table * 8), L1Entry.Of(Append(_l2)).Bits);
        }
        else
        {
            _file.Write(_l2, Entry(_table).L2Offset);
        }

        _changed = false;
    }

    private L1Entry Entry(int table) => new(BinaryPrimitives.ReadUInt64BigEndian(_l1.AsSpan(table * 8)));
}
