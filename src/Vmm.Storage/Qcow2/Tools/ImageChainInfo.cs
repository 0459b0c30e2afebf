namespace Vmm.Storage.Qcow2.Tools;

/// <summary>An image of a chain.</summary>
/// <param name="Path">The file as it is opened.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>.</param>
/// <param name="Size">Bytes of its disk.</param>
public sealed record ImageChainInfo(string Path, string Format, ulong Size)
{
    /// <summary>The images of a chain, from the top on.</summary>
    /// <exception cref="BlockException">One of them cannot be opened, has no known format, or is in its own chain.</exception>
    public static IReadOnlyList<ImageChainInfo> Read(string path, string format)
    {
        using ImageChain chain = ImageChain.Open(path, format);
        return [.. chain.Layers.Select(layer => new ImageChainInfo(layer.Path, layer.Format, layer.Size))];
    }
}
