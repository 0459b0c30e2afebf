namespace Vmm.Storage.Qcow2;

/// <summary>
/// Gives the top image an L1 table with more entries while it is used: within its clusters where they have room, else in new ones, to
/// which the header switches in one sector. What is new maps nothing. On the metadata's thread.
/// </summary>
internal sealed class L1Growth(ImageState state, IImageFile file, Reservation reservation)
{
    private readonly Qcow2Geometry _image = state.Chain.Layers[0].Tables!.Geometry;

    /// <summary>Durable when this returns; a crash in between leaves leaks.</summary>
    /// <param name="entries">Entries that the table needs.</param>
    /// <param name="isMetadata">True when a table or the header lies in the cluster of that number.</param>
    /// <exception cref="BlockException">The host failed, or has no space; the image has its old table.</exception>
    internal void Run(uint entries, Func<ClusterRun, ulong?> isMetadata)
    {
        Qcow2Header old = state.Chain.Layers[0].Header!;
        if (entries <= old.L1Size)
        {
            return;
        }

        ulong has = _image.ClustersFor(old.L1Size * 8ul), needs = _image.ClustersFor(entries * 8ul);
        if (needs <= has)
        {
            TableBytes.Write(file, old.L1Offset + (old.L1Size * 8ul), new ulong[entries - old.L1Size]);
            Switch(old, old with { L1Size = entries });
            return;
        }

        ClusterRun place = reservation.ReserveTable((int)needs, isMetadata);
        try
        {
            // What the file has: entries that are only in memory name tables that are not stable yet.
            ulong[] table = new ulong[(int)(needs << (_image.ClusterBits - 3))];
            TableBytes.Read(file, old.L1Offset, (int)old.L1Size).CopyTo(table, 0);
            TableBytes.Write(file, place.First << _image.ClusterBits, table);
            Switch(old, old with { L1Size = entries, L1Offset = place.First << _image.ClusterBits });
        }
        catch (BlockException)
        {
            Drop(place); // the header names the old one, or nothing is written any more
            throw;
        }

        Drop(new ClusterRun(_image.ClusterOf(old.L1Offset), (int)has));
    }

    private void Switch(Qcow2Header old, Qcow2Header next)
    {
        file.Flush(); // the table that is about to be named
        try
        {
            ImageHeader.SetL1(file, next.L1Size, next.L1Offset);
            file.Flush();
        }
        catch (BlockException failure)
        {
            Undo(old, failure);
            throw;
        }

        lock (state)
        {
            state.Chain.ReplaceTop(top => top with { Header = next });
            state.Chain.Layers[0].Tables!.Enlarge(next.L1Size);
        }
    }

    // Nobody knows which table the header names now: it has to be the old one, which goes on.
    private void Undo(Qcow2Header old, BlockException failure)
    {
        try
        {
            ImageHeader.SetL1(file, old.L1Size, old.L1Offset);
            file.Flush();
        }
        catch (BlockException)
        {
            lock (state)
            {
                state.Distrust(failure);
            }
        }
    }

    // Operations may know the old table's clusters from memory only; they come back as others do.
    private void Drop(ClusterRun clusters)
    {
        lock (state)
        {
            state.Freed.AddUnused(clusters);
        }
    }
}
