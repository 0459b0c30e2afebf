using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Goes through every table of an image once and counts who uses which cluster. Tables that are referred to several times, lie over one
/// another or behind the end of the file cost no more than others: each L2 table inside the file is read once, whatever refers to it, and
/// memory is taken for clusters of the file only.
/// </summary>
internal sealed class Qcow2Walk(IImageFile file, Qcow2Header header, CheckReport report, ToolProgress progress)
{
    // QEMU lets the last cluster end behind the file, by less than a cluster.
    private readonly ulong _length = file.Length;
    private readonly Qcow2Geometry _image = header.Geometry;
    private readonly Dictionary<ulong, L2Users> _l2 = [];
    private ulong _snapshotEntries; // bytes of the L1 tables of snapshots

    /// <summary>An entry of a table leads out of the file: the file must not grow, or something else would be there.</summary>
    internal bool LeadsOutside { get; private set; }

    /// <summary>Clusters of tables that something else uses, too.</summary>
    internal HashSet<ulong> Overlaps { get; } = [];

    /// <summary>Uses of each cluster, as far as they were walked.</summary>
    internal ClusterCounts Counts { get; } = new();

    /// <summary>The L2 tables that the active L1 table refers to, in the order of the file, with their number of entries there.</summary>
    internal IEnumerable<(ulong Offset, uint Times)> ActiveL2 =>
        _l2.Where(t => t.Value.Active > 0).OrderBy(t => t.Key).Select(t => (t.Key, t.Value.Active));

    /// <summary>Everything but the refcounts: header, L1 and L2 tables, payload, snapshots, bitmaps.</summary>
    internal void CountUsers()
    {
        Use(0, _image.ClusterSize, 1, "the header");
        WalkL1(header.L1Offset, header.L1Size, isActive: true);
        List<Qcow2Snapshot> snapshots = SnapshotTable.Read(file, header, Damaged, out ulong snapshotBytes);
        Use(header.SnapshotsOffset, snapshotBytes, 1, "the table of snapshots");
        snapshots.ForEach(WalkSnapshot);
        WalkL2Tables();
        (ulong directory, ulong bytes, _) = BitmapDirectory.Place(header);
        List<Qcow2Bitmap> bitmaps = BitmapDirectory.Read(file, header, Damaged);
        Use(directory, bytes, 1, "the directory of bitmaps");
        bitmaps.ForEach(WalkBitmap);
    }

    /// <summary>Finds tables that lie over something else; behind the counting of all users.</summary>
    internal void FindOverlaps()
    {
        RequireOwn(0, _image.ClusterSize, 1, "the header");
        RequireOwn(header.L1Offset, header.L1Size * 8ul, 1, "the L1 table");
        foreach ((ulong offset, L2Users users) in _l2.OrderBy(t => t.Key))
        {
            RequireOwn(offset, _image.ClusterSize, users.Active + users.Others, "the L2 table");
        }
    }

    /// <summary>The refcount table and its blocks, which are users, too.</summary>
    internal void CountRefcounts()
    {
        ulong bytes = (ulong)header.RefcountTableClusters << _image.ClusterBits;
        bool leadsOutside = LeadsOutside;
        Use(header.RefcountTableOffset, bytes, 1, "the refcount table");
        CheckRefcountTable(bytes);
        LeadsOutside = leadsOutside; // this table would be written anew
        foreach ((uint index, ulong bits) in TableSlices.NonZero(file, header.RefcountTableOffset, bytes / 8, progress))
        {
            string? problem = (bits & 0x1ff) != 0 ? "has reserved bits set"
                : !_image.IsAligned(bits) ? "does not begin at a cluster"
                : bits >= _length ? "lies outside the file"
                : null;
            if (problem is null)
            {
                Use(bits, _image.ClusterSize, 1, "a refcount block");
                problem = Counts[_image.ClusterOf(bits)] == 1 ? null : $"is used {Counts[_image.ClusterOf(bits)]} times";
            }

            if (problem is not null)
            {
                report.Add(CheckFindingKind.RefcountStructure, bits, $"refcount block {index} at {bits} {problem}");
            }
        }
    }

    // One outside the file, or that something else uses, cannot be believed nor written.
    private void CheckRefcountTable(ulong bytes)
    {
        ulong first = _image.ClusterOf(header.RefcountTableOffset);
        for (ulong i = 0; i < bytes >> _image.ClusterBits; i++)
        {
            if (Counts[first + i] != 1)
            {
                ulong at = header.RefcountTableOffset;
                report.Add(CheckFindingKind.RefcountStructure, at, $"the refcount table at {at} is outside the file, or used twice");
                return;
            }
        }
    }

    /// <summary>Counts a range of the file; ranges outside are found and not counted.</summary>
    private void Use(ulong offset, ulong length, uint times, string what)
    {
        if (length == 0)
        {
            return;
        }

        if (length > 1ul << 62 || offset > 1ul << 62 || (offset + length > _length && offset + length - _length >= _image.ClusterSize))
        {
            LeadsOutside = true;
            report.Add(CheckFindingKind.OutsideFile, offset, $"{what} at {offset} lies outside the file of {_length} bytes", times);
            return;
        }

        for (ulong cluster = _image.ClusterOf(offset); cluster <= _image.ClusterOf(offset + length - 1); cluster++)
        {
            Counts.Add(cluster, times);
            if (Counts[cluster] > _image.MaxRefcount)
            {
                report.Add(CheckFindingKind.RefcountOverflow, cluster << _image.ClusterBits,
                    $"the cluster at {cluster << _image.ClusterBits} is used {Counts[cluster]} times, more than a refcount can say");
            }
        }
    }

    private void RequireOwn(ulong offset, ulong length, uint times, string what)
    {
        for (ulong at = offset; at < Math.Min(offset + length, _length); at += _image.ClusterSize)
        {
            if (Counts[_image.ClusterOf(at)] > times && Overlaps.Add(_image.ClusterOf(at)))
            {
                report.Add(CheckFindingKind.Overlap, at, $"{what} at {offset} lies over something else, at {at}");
            }
        }
    }

    private void WalkL1(ulong offset, ulong entries, bool isActive)
    {
        Use(offset, entries * 8, 1, isActive ? "the L1 table" : "the L1 table of a snapshot");
        foreach ((uint index, ulong bits) in TableSlices.NonZero(file, offset, entries, progress))
        {
            ulong table = new L1Entry(bits).L2Offset, place = offset + (index * 8ul);
            if ((bits & L1Entry.ReservedMask) != 0 || table == 0)
            {
                report.Add(CheckFindingKind.ReservedBits, place, $"L1 entry {index} (0x{bits:x16}) has bits set that may not be");
            }

            if (!_image.IsAligned(table))
            {
                report.Add(CheckFindingKind.Unaligned, place, $"L1 entry {index}: L2 table at {table} is not at a cluster");
                Use(table, _image.ClusterSize, 1, "an L2 table");
            }
            else if (table < _length && table != 0)
            {
                ref L2Users users = ref System.Runtime.InteropServices.CollectionsMarshal.GetValueRefOrAddDefault(_l2, table, out _);
                users = isActive ? users with { Active = users.Active + 1 } : users with { Others = users.Others + 1 };
            }
            else if (table != 0)
            {
                Use(table, _image.ClusterSize, 1, "an L2 table");
            }
        }
    }

    private void WalkSnapshot(Qcow2Snapshot snapshot)
    {
        _snapshotEntries += snapshot.L1Size * 8ul;
        string? problem = !_image.IsAligned(snapshot.L1Offset) ? "is not at a cluster"
            : snapshot.L1Size * 8ul > Qcow2Header.MaxL1Bytes ? "is too large"
            : _snapshotEntries > _length + Qcow2Header.MaxL1Bytes ? "lies over those of other snapshots"
            : null;
        if (problem is not null)
        {
            Damaged(snapshot.L1Offset, $"the L1 table of snapshot {snapshot.Id} at {snapshot.L1Offset} {problem}");
            return;
        }

        WalkL1(snapshot.L1Offset, snapshot.L1Size, isActive: false);
    }

    private void WalkBitmap(Qcow2Bitmap bitmap)
    {
        Use(bitmap.TableOffset, bitmap.TableSize * 8ul, 1, $"the table of bitmap {bitmap.Name}");
        foreach ((uint index, ulong bits) in TableSlices.NonZero(file, bitmap.TableOffset, bitmap.TableSize, progress))
        {
            ulong offset = new L1Entry(bits).L2Offset; // the same bits of the entry
            if (bits != offset && (bits != 1 || offset != 0))
            {
                ulong place = bitmap.TableOffset + (index * 8ul);
                report.Add(CheckFindingKind.ReservedBits, place, $"bitmap {bitmap.Name}: entry {index} has bits set that may not be");
            }
            else if (offset != 0)
            {
                Use(offset, _image.ClusterSize, 1, $"a cluster of bitmap {bitmap.Name}");
            }
        }
    }

    private void WalkL2Tables()
    {
        progress.Begin((ulong)_l2.Count);
        byte[] table = new byte[_image.ClusterSize];
        foreach ((ulong offset, L2Users users) in _l2.OrderBy(t => t.Key))
        {
            Use(offset, _image.ClusterSize, users.Active + users.Others, "an L2 table");
            file.Read(table, offset);
            if (table.AsSpan().IndexOfAnyExcept((byte)0) >= 0)
            {
                WalkL2(offset, table, users);
            }

            progress.Advance(1);
        }
    }

    private void WalkL2(ulong offset, byte[] table, L2Users users)
    {
        uint times = users.Active + users.Others;
        for (int at = 0; at < table.Length; at += _image.L2EntrySize)
        {
            L2Entry entry = L2EntryBytes.Read(table, at, _image);
            if (entry.Bits == 0 && entry.Bitmap == 0)
            {
                continue;
            }

            L2EntryJudge.Judge(entry, _image, offset + (uint)at, report, times);
            if (entry.IsCompressed)
            {
                (ulong from, uint bytes) = entry.CompressedRange(_image);
                if (from >= _length && from - _length < _image.ClusterSize)
                {
                    LeadsOutside = true; // the file's last cluster may be short, and bytes that begin behind it are none
                    report.Add(CheckFindingKind.ImpossibleEntry, from, $"compressed bytes at {from} begin behind the file's end", times);
                }

                Use(from, bytes, times, "a compressed cluster");
                report.CompressedClusters += users.Active;
                report.AllocatedClusters += users.Active;
            }
            else if (entry.HostOffset != 0)
            {
                Use(entry.HostOffset, _image.ClusterSize, times, "a cluster of the disk");
                report.AllocatedClusters += users.Active;
            }
        }
    }

    private void Damaged(ulong offset, string text) => report.Add(CheckFindingKind.Directory, offset, text);

    private readonly record struct L2Users(uint Active, uint Others);
}
