namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Where each part of a disk comes from, over a whole chain.</summary>
public static class ImageMap
{
    /// <summary>The parts of the disk in their order, joined where they go on in the same place.</summary>
    /// <param name="path">The top image.</param>
    /// <param name="format">Its format.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">An image of the chain cannot be opened or read.</exception>
    public static IEnumerable<DiskExtent> Read(string path, string format, ToolProgress progress)
    {
        using ImageChain chain = ImageChain.Open(path, format);
        foreach (DiskExtent extent in Read(chain, progress))
        {
            yield return extent;
        }
    }

    internal static IEnumerable<DiskExtent> Read(ImageChain chain, ToolProgress progress)
    {
        DiskExtent held = default;
        progress.Begin(chain.Size);
        for (ulong at = 0; at < chain.Size;)
        {
            DiskExtent extent = chain.Map(at, chain.Size - at);
            if (held.Length > 0 && held.Continues(extent))
            {
                held = held with { Length = held.Length + extent.Length };
            }
            else
            {
                if (held.Length > 0)
                {
                    yield return held;
                }

                held = extent;
            }

            at += extent.Length;
            progress.Advance(extent.Length);
        }

        if (held.Length > 0)
        {
            yield return held;
        }
    }
}
