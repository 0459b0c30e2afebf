namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Takes an image from its tables to new ones that were appended to the file. Refcounts are counted anew from what the new header reaches
/// and appended, too; then one sector of the header is written. Before that the image is the old one, after it the new one, and what only
/// the old one used is free.
/// </summary>
internal static class TableSwitch
{
    /// <summary>Makes <paramref name="header"/> the image's header.</summary>
    /// <param name="file">The image.</param>
    /// <param name="header">The header with the place of the new tables; what it says of refcounts is not used.</param>
    /// <param name="keep">Adds uses to those that were counted; may be null.</param>
    /// <param name="progress">What to tell.</param>
    /// <returns>The header as written.</returns>
    /// <exception cref="BlockException">The host failed, or the refcounts need a table that is too large.</exception>
    internal static Qcow2Header Commit(IImageFile file, Qcow2Header header, Action<ClusterCounts>? keep, ToolProgress progress)
    {
        Qcow2Geometry image = header.Geometry;
        CheckReport unused = new();
        Qcow2Walk walk = new(file, header, unused, progress);
        walk.CountUsers();
        keep?.Invoke(walk.Counts);
        ulong first = Math.Max(image.ClustersFor(file.Length), walk.Counts.End);
        (ulong offset, uint clusters) = RefcountWriter.Write(file, image, walk.Counts, first, progress);
        if ((ulong)clusters << image.ClusterBits > Qcow2Header.MaxRefcountTableBytes)
        {
            throw new BlockException(
                BlockErrorKind.BadSize, $"disk {file.Path}: its refcount table would be above 8 MiB; convert it to larger clusters")
            { Path = file.Path };
        }

        file.Grow(walk.Counts.End << image.ClusterBits);
        file.Flush();
        Qcow2Header switched = header with { RefcountTableOffset = offset, RefcountTableClusters = clusters };
        HeaderPatch.Write(file, switched);
        file.Flush();
        return switched;
    }
}
