using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// The refcounts of an image, on the metadata's thread alone. One block of them is in memory. What is stored here becomes stable with the
/// next flush of the file.
/// </summary>
internal sealed class RefcountTable
{
    private const int Sector = 512;

    private readonly IImageFile _file;
    private readonly Qcow2Geometry _image;
    private readonly byte[] _block;
    private ulong[] _table;
    private ulong _tableOffset;
    private uint _tableClusters;
    private int _loaded = -1, _dirtyFrom = int.MaxValue, _dirtyTo;

    /// <summary>Reads the table.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal RefcountTable(IImageFile file, Qcow2Header header)
    {
        _file = file;
        _image = header.Geometry;
        _block = new byte[_image.ClusterSize];
        _tableOffset = header.RefcountTableOffset;
        _tableClusters = header.RefcountTableClusters;
        _table = TableBytes.Read(file, _tableOffset, (int)((ulong)_tableClusters << (_image.ClusterBits - 3)));
    }

    /// <summary>Refcounts in a block.</summary>
    internal ulong PerBlock => 1ul << _image.RefcountBlockBits;

    /// <summary>Where refcount blocks lie; 0 is none.</summary>
    internal ReadOnlySpan<ulong> Blocks => _table;

    /// <summary>Where the table itself lies.</summary>
    internal (ulong Offset, uint Clusters) Place => (_tableOffset, _tableClusters);

    /// <summary>The refcount of a cluster of the file.</summary>
    /// <exception cref="BlockException">The host failed, or the table is damaged.</exception>
    internal ulong Get(ulong cluster) =>
        Load(cluster >> _image.RefcountBlockBits) ? Refcounts.Get(_block, IndexOf(cluster), _image.RefcountOrder) : 0;

    /// <summary>Changes the refcount of a cluster whose block exists; <see cref="Store"/> writes it.</summary>
    /// <exception cref="BlockException">The host failed, or the table is damaged.</exception>
    internal void Set(ulong cluster, ulong value)
    {
        if (!Load(cluster >> _image.RefcountBlockBits))
        {
            throw Damaged($"cluster {cluster} has no refcount block");
        }

        int index = IndexOf(cluster);
        Refcounts.Set(_block, index, _image.RefcountOrder, value);
        int at = (int)(((long)index << _image.RefcountOrder) >> 3);
        _dirtyFrom = Math.Min(_dirtyFrom, at);
        _dirtyTo = Math.Max(_dirtyTo, at + Math.Max(1, (1 << _image.RefcountOrder) >> 3));
    }

    /// <summary>Writes what was changed of the block in memory, whole sectors.</summary>
    /// <exception cref="BlockException">The host failed; the block is read again before it is used.</exception>
    internal void Store()
    {
        if (_dirtyFrom >= _dirtyTo)
        {
            return;
        }

        int from = _dirtyFrom / Sector * Sector, to = Math.Min((_dirtyTo + Sector - 1) / Sector * Sector, _block.Length);
        int loaded = _loaded;
        Forget();
        _file.Write(_block.AsSpan(from..to), _table[loaded] + (uint)from);
        _loaded = loaded;
    }

    /// <summary>Drops changes that were not stored.</summary>
    internal void Forget() => (_loaded, _dirtyFrom, _dirtyTo) = (-1, int.MaxValue, 0);

    /// <summary>True when the cluster has a refcount block.</summary>
    internal bool HasBlock(ulong cluster)
    {
        ulong index = cluster >> _image.RefcountBlockBits;
        return index < (ulong)_table.Length && _table[index] != 0;
    }

    /// <summary>
    /// Makes a refcount block behind everything else in the file, that of <paramref name="cluster"/> or, when the table is full, others
    /// with more room in the table: ask <see cref="HasBlock"/> again. Durable when this returns; a crash in between leaves leaks.
    /// </summary>
    /// <exception cref="BlockException">The host failed, or has no space.</exception>
    internal void AddBlock(ulong cluster)
    {
        Store();
        ulong index = cluster >> _image.RefcountBlockBits;
        if (index >= (ulong)_table.Length)
        {
            GrowTable(index);
            return;
        }

        ulong place = _image.ClustersFor(_file.Length);
        while (place >> _image.RefcountBlockBits != index && !HasBlock(place))
        {
            AddBlock(place); // which counts itself, or is counted by an older block
            place = _image.ClustersFor(_file.Length);
        }

        byte[] block = new byte[_image.ClusterSize];
        if (place >> _image.RefcountBlockBits == index)
        {
            Refcounts.Set(block, IndexOf(place), _image.RefcountOrder, 1);
        }
        else
        {
            Set(place, 1);
            Store();
        }

        _file.Write(block, place << _image.ClusterBits);
        _file.Flush();
        WriteTableEntry((int)index, place << _image.ClusterBits);
    }

    // A longer table and the blocks that count it and themselves lie where no block counts yet; then the header names the new table.
    private void GrowTable(ulong index)
    {
        ulong start = Math.Max(_image.ClustersFor(_file.Length), (ulong)_table.Length << _image.RefcountBlockBits);
        ulong entries = Math.Max(index + 1, (ulong)_table.Length + ((ulong)_table.Length / 2));
        ulong blocks = 1, table;
        while (true)
        {
            entries = Math.Max(entries, (start >> _image.RefcountBlockBits) + blocks);
            table = _image.ClustersFor(entries * 8);
            ulong needed = ((start + blocks + table - 1) >> _image.RefcountBlockBits) - (start >> _image.RefcountBlockBits) + 1;
            if (needed <= blocks)
            {
                break;
            }

            blocks = needed;
        }

        ulong[] grown = new ulong[(int)(table << (_image.ClusterBits - 3))];
        _table.CopyTo(grown, 0);
        ulong firstBlock = start >> _image.RefcountBlockBits, end = start + blocks + table;
        for (ulong b = 0; b < blocks; b++)
        {
            ulong from = Math.Max(start, (firstBlock + b) << _image.RefcountBlockBits);
            ulong to = Math.Min(end, (firstBlock + b + 1) << _image.RefcountBlockBits);
            byte[] block = new byte[_image.ClusterSize];
            for (ulong cluster = from; cluster < to; cluster++)
            {
                Refcounts.Set(block, IndexOf(cluster), _image.RefcountOrder, 1);
            }

            grown[firstBlock + b] = (start + b) << _image.ClusterBits;
            _file.Write(block, grown[firstBlock + b]);
        }

        SwitchTable(grown, (start + blocks) << _image.ClusterBits, (uint)table);
    }

    private void SwitchTable(ulong[] table, ulong offset, uint clusters)
    {
        TableBytes.Write(_file, offset, table);
        _file.Flush();
        ImageHeader.SetRefcountTable(_file, offset, clusters);
        _file.Flush();
        ClusterRun old = new(_tableOffset >> _image.ClusterBits, (int)_tableClusters);
        (_table, _tableOffset, _tableClusters) = (table, offset, clusters);
        for (ulong cluster = old.First; cluster < old.End; cluster++)
        {
            Store();
            Set(cluster, Get(cluster) - 1);
        }

        Store();
    }

    private void WriteTableEntry(int index, ulong offset)
    {
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, offset);
        _file.Write(bytes, _tableOffset + ((ulong)index * 8));
        _file.Flush();
        _table[index] = offset;
    }

    private bool Load(ulong index)
    {
        if (index == (ulong)_loaded)
        {
            return true;
        }

        Store();
        ulong offset = index < (ulong)_table.Length ? _table[index] : 0;
        if (offset == 0)
        {
            return false;
        }

        if (!_image.IsAligned(offset) || offset >= _file.Length)
        {
            throw Damaged($"refcount block {index} lies at {offset}");
        }

        Forget();
        _file.Read(_block, offset);
        _loaded = (int)index;
        return true;
    }

    private int IndexOf(ulong cluster) => (int)(cluster & (PerBlock - 1));

    private BlockException Damaged(string what) => ImageHeader.Damage(_file, what);
}
