namespace Vmm.Storage.Qcow2.Tools;

/// <summary>How an image is converted.</summary>
public sealed record ConvertOptions
{
    /// <summary><c>raw</c> or <c>qcow2</c>: what the source is.</summary>
    public required string SourceFormat { get; init; }

    /// <summary><c>raw</c> or <c>qcow2</c>: what the target becomes.</summary>
    public required string TargetFormat { get; init; }

    /// <summary>What a qcow2 target is like; its size and backing file are not used.</summary>
    public Qcow2CreateOptions Target { get; init; } = new() { DiskSize = 512 };

    /// <summary>Compresses the clusters of a qcow2 target that become smaller by it.</summary>
    public bool Compress { get; init; }

    /// <summary>A file with the target's name is replaced, when nobody uses it.</summary>
    public bool Replace { get; init; }
}

/// <summary>
/// Copies a disk with its whole chain into one new image. What is zeros takes no space there. Under the target's name there is a whole
/// image, or nothing.
/// </summary>
public static class ImageConvert
{
    private const int RawBlock = 64 * 1024;

    /// <summary>Converts.</summary>
    /// <exception cref="BlockException">The source cannot be read, the target cannot be made, or the host failed.</exception>
    public static void Run(string source, string target, ConvertOptions options, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        using ImageChain chain = ImageChain.Open(source, options.SourceFormat);
        using NewImageFile made = NewImageFile.Create(target, options.Replace);
        ulong size = (chain.Size + 511) & ~511ul;
        if (string.Equals(options.TargetFormat, "qcow2", StringComparison.Ordinal))
        {
            Qcow2CreateOptions like = options.Target with { DiskSize = size, BackingFile = null, BackingFormat = null };
            using ClusterCodec? codec = options.Compress ? new ClusterCodec(like.Compression) : null;
            Qcow2Builder builder = new(made.File, like);
            ForEachBlock(chain, (int)builder.Geometry.ClusterSize, progress, (at, cluster) =>
            {
                if (codec?.Compress(cluster) is { } packed)
                {
                    builder.AddCompressed(at, packed);
                }
                else
                {
                    builder.AddData(at, cluster);
                }
            });
            _ = builder.Finish(progress);
        }
        else
        {
            made.File.Grow(size);
            ForEachBlock(chain, RawBlock, progress, (at, block) =>
                made.File.Write(block.AsSpan(0, (int)Math.Min((ulong)block.Length, size - at)), at));
        }

        made.Complete();
    }

    // Those blocks of the disk that are not zeros; the last one is filled up with zeros.
    private static void ForEachBlock(ImageChain chain, int blockBytes, ToolProgress progress, Action<ulong, byte[]> use)
    {
        byte[] block = new byte[blockBytes];
        progress.Begin(chain.Size);
        for (ulong at = 0; at < chain.Size;)
        {
            DiskExtent extent = chain.Map(at, chain.Size - at);
            ulong empty = extent.Kind is DiskExtentKind.Unallocated or DiskExtentKind.Zero ? extent.Length : 0;
            ulong skip = at + empty == chain.Size ? empty : empty / (uint)blockBytes * (uint)blockBytes;
            if (skip == 0)
            {
                int take = (int)Math.Min((ulong)blockBytes, chain.Size - at);
                chain.Read(block.AsSpan(0, take), at);
                block.AsSpan(take).Clear();
                if (block.AsSpan().IndexOfAnyExcept((byte)0) >= 0)
                {
                    use(at, block);
                }

                skip = (uint)take;
            }

            at += skip;
            progress.Advance(skip);
        }
    }
}
