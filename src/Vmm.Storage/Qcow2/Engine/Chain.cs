using System.Numerics;

namespace Vmm.Storage.Qcow2;

/// <summary>One image of an open chain.</summary>
/// <param name="File">Its file.</param>
/// <param name="DiskSize">Bytes of the disk that it holds.</param>
/// <param name="Tables">Its tables; null for a raw one.</param>
/// <param name="Header">Its header; null for a raw one.</param>
internal sealed record ChainLayer(IImageFile File, ulong DiskSize, ImageTables? Tables, Qcow2Header? Header);

/// <summary>
/// Answers where bytes of the disk are, over all images of a chain, from what is in memory; never touches payload and does no I/O. Under
/// the disk's lock.
/// </summary>
internal sealed class Chain(ChainLayer[] layers, L2Cache cache)
{
    /// <summary>The images, the top first.</summary>
    internal ChainLayer[] Layers { get; } = layers;

    internal L2Cache Cache { get; } = cache;

    /// <summary>What is known of the top image is another thing now.</summary>
    internal void ReplaceTop(Func<ChainLayer, ChainLayer> change) => Layers[0] = change(Layers[0]);

    /// <summary>
    /// Where the bytes from <paramref name="offset"/> on are, and how far that goes, at most to <paramref name="end"/>. The extent's layer
    /// is the image that says so, also of zeros; the number of images when none says anything.
    /// </summary>
    internal Extent Resolve(ulong offset, ulong end, int from = 0)
    {
        for (int i = from; i < Layers.Length; i++)
        {
            ChainLayer layer = Layers[i];
            if (offset >= layer.DiskSize)
            {
                return new Extent(ExtentKind.Zero, end - offset, i); // the disk below is shorter, and hides what is below it
            }

            end = Math.Min(end, layer.DiskSize);
            if (layer.Tables is not { } tables)
            {
                return new Extent(ExtentKind.Data, end - offset, i, offset);
            }

            if (Map(tables, layer, offset, end, out Extent extent))
            {
                return extent;
            }

            end = offset + extent.Length; // so far this image has nothing: the next one is asked
        }

        return new Extent(ExtentKind.Zero, end - offset, Layers.Length);
    }

    /// <summary>True when the whole range reads as zeros, as far as tables say. False with a missing or damaged extent otherwise.</summary>
    internal bool ReadsAsZeros(ulong offset, ulong end, out Extent other)
    {
        other = default;
        while (offset < end)
        {
            other = Resolve(offset, end);
            if (other.Kind != ExtentKind.Zero)
            {
                return false;
            }

            offset += other.Length;
        }

        return true;
    }

    // False when the image says nothing of the range.
    private bool Map(ImageTables tables, ChainLayer layer, ulong offset, ulong end, out Extent extent)
    {
        Qcow2Geometry image = tables.Geometry;
        ulong cluster = image.ClusterOf(offset);
        L1Entry table = tables.TableOf(cluster);
        if (table.L2Offset == 0 || !table.IsValidIn(image))
        {
            ulong tableEnd = Math.Min(end, tables.TableEnd(cluster) << image.ClusterBits);
            bool damaged = table.Bits != 0;
            extent = new Extent(damaged ? ExtentKind.Damaged : ExtentKind.Zero, tableEnd - offset, tables.Layer, table.Bits);
            return damaged;
        }

        ulong key = tables.KeyOf(cluster);
        if (Cache.Find(key) is not { IsLoaded: true } slot)
        {
            extent = new Extent(ExtentKind.Missing, 0, tables.Layer, key);
            return true;
        }

        end = Math.Min(end, tables.SliceEnd(cluster) << image.ClusterBits);
        return MapIn(slot, tables, layer.File.Length, offset, end, out extent);
    }

    // The longest range of one kind (and, for data, of one place) from offset on within the slice.
    private static bool MapIn(L2Slot slot, ImageTables tables, ulong fileLength, ulong offset, ulong end, out Extent extent)
    {
        Qcow2Geometry image = tables.Geometry;
        ulong at = offset, place = 0;
        ClusterKind kind = default;
        while (at < end)
        {
            L2Entry entry = slot.Entry(tables.IndexOf(image.ClusterOf(at)), image.ExtendedL2);
            ClusterKind here = PieceOf(entry, image, fileLength, at, out ulong herePlace, out ulong pieceEnd);
            bool goesOn = here == kind && (kind is ClusterKind.Unallocated or ClusterKind.Zero
                || (kind == ClusterKind.Data && herePlace == place + (at - offset)));
            if (at != offset && !goesOn)
            {
                break;
            }

            (kind, place) = at == offset ? (here, herePlace) : (kind, place);
            at = Math.Min(end, pieceEnd);
            if (kind is ClusterKind.Compressed or ClusterKind.Invalid)
            {
                break;
            }
        }

        ExtentKind told = kind switch
        {
            ClusterKind.Data => ExtentKind.Data,
            ClusterKind.Compressed => ExtentKind.Compressed,
            ClusterKind.Invalid => ExtentKind.Damaged,
            _ => ExtentKind.Zero,
        };
        extent = new Extent(told, at - offset, tables.Layer, place);
        return kind != ClusterKind.Unallocated;
    }

    // What the entry says of the byte at "at", and up to where it says the same.
    private static ClusterKind PieceOf(
        L2Entry entry, Qcow2Geometry image, ulong fileLength, ulong at, out ulong place, out ulong pieceEnd)
    {
        uint inCluster = image.InCluster(at);
        ulong start = at - inCluster;
        ClusterKind kind = entry.KindIn(image);
        pieceEnd = start + image.ClusterSize;
        place = kind == ClusterKind.Data ? entry.HostOffset + inCluster : entry.Bits;
        if (kind == ClusterKind.Data && entry.HostOffset >= fileLength)
        {
            place = entry.Bits;
            return ClusterKind.Invalid;
        }

        if (!image.ExtendedL2 || kind is ClusterKind.Compressed or ClusterKind.Invalid)
        {
            return kind;
        }

        int sub = (int)(inCluster >> image.SubclusterBits);
        bool allocated = ((entry.Allocated >> sub) & 1) != 0, zero = ((entry.Zeros >> sub) & 1) != 0;
        uint same = allocated ? entry.Allocated : zero ? entry.Zeros : ~(entry.Allocated | entry.Zeros);
        int run = BitOperations.TrailingZeroCount(~((ulong)same >> sub)); // parts of the same state from this one on
        pieceEnd = Math.Min(pieceEnd, start + ((ulong)(sub + run) << image.SubclusterBits));
        return allocated ? ClusterKind.Data : zero ? ClusterKind.Zero : ClusterKind.Unallocated;
    }
}
