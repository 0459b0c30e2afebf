using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Replicas;

/// <summary>
/// Makes one image of two of a replica's that stand on each other: what the upper one has, else what the lower one has, over the lower
/// one's backing file. Their clusters are those that a delta became. For one thread.
/// </summary>
internal static class ImageMerge
{
    /// <summary>Makes it. The two are read only.</summary>
    /// <param name="lower">The lower image; has a backing file.</param>
    /// <param name="upper">The upper one.</param>
    /// <param name="target">The new file; one of that name is replaced.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">An image is damaged or in use, or the host failed.</exception>
    internal static void Run(string lower, string upper, string target, ToolProgress progress)
    {
        using Qcow2Layer above = Open(upper), below = Open(lower);
        using (new FileStream(target, FileMode.Create, FileAccess.ReadWrite))
        {
        }

        using RawImageFile file = ImageFiles.Open(target, writable: true);
        Qcow2Builder builder = new(file, new Qcow2CreateOptions
        {
            DiskSize = above.Size,
            Compression = Qcow2Compression.Zstd,
            BackingFile = below.Header.BackingFile,
            BackingFormat = below.Header.BackingFormat,
        });
        Copy(above, below, builder, progress);
        _ = builder.Finish(ToolProgress.None);
    }

    private static Qcow2Layer Open(string path)
    {
        RawImageFile file = ImageFiles.Open(path, writable: false);
        try
        {
            return new Qcow2Layer(file, isOwner: true);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static void Copy(Qcow2Layer above, Qcow2Layer below, Qcow2Builder builder, ToolProgress progress)
    {
        using ClusterCodec codec = new(Qcow2Compression.Zstd);
        ulong cluster = builder.Geometry.ClusterSize;
        byte[] content = new byte[cluster];
        progress.Begin(above.Size);
        for (ulong at = 0; at < above.Size;)
        {
            DiskExtent extent = above.Map(at, above.Size - at);
            Qcow2Layer source = above;
            if (extent.Kind == DiskExtentKind.Unallocated && at < below.Size)
            {
                source = below;
                extent = below.Map(at, Math.Min(extent.Length, below.Size - at));
            }

            ulong done = extent.Length;
            if (extent.Kind == DiskExtentKind.Zero)
            {
                for (ulong zero = 0; zero < extent.Length; zero += cluster)
                {
                    builder.AddZeros(at + zero);
                }
            }
            else if (extent.Kind != DiskExtentKind.Unallocated)
            {
                done = Math.Min(extent.Length, cluster);
                source.Read(extent, content.AsSpan(0, (int)done));
                content.AsSpan((int)done).Clear(); // the end of the disk lies in the cluster
                Add(builder, codec, extent.Kind, at, content);
            }

            progress.Advance(done);
            at += done;
        }
    }

    private static void Add(Qcow2Builder builder, ClusterCodec codec, DiskExtentKind kind, ulong at, byte[] content)
    {
        if (kind == DiskExtentKind.Compressed && codec.Compress(content) is { } packed)
        {
            builder.AddCompressed(at, packed);
        }
        else
        {
            builder.AddData(at, content);
        }
    }
}
