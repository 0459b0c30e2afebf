using Vmm.Interop;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Differencing disks over images that no VM uses.</summary>
public static class ImageSnapshot
{
    /// <summary>
    /// Makes an empty differencing disk over an image. The image and all below it are locked meanwhile, and found to be sound enough to be
    /// opened. In one folder the overlay names the image without it, so that both can be moved together.
    /// </summary>
    /// <param name="image">The image.</param>
    /// <param name="format">What it is.</param>
    /// <param name="overlay">The file to make.</param>
    /// <exception cref="BlockException">
    /// The image is in use, none, or has too many below it; or the overlay exists or cannot be made.
    /// </exception>
    public static void Take(string image, ImageFormat format, string overlay)
    {
        string from = Path.GetFullPath(image), to = Path.GetFullPath(overlay);
        RawFileOptions options = new() { Cache = DiskCacheMode.Buffered };
        using DiskImageChain chain = format == ImageFormat.Qcow2
            ? DiskImageChain.Open(from, options)
            : DiskImageChain.Of([new ChainImage(RawFileBackend.Open(from, options), ImageFormat.Raw)]);
        if (chain.Images.Count >= DiskImageChain.MostImages)
        {
            throw new BlockException(
                BlockErrorKind.NotADisk,
                $"disk {image} has a chain of {chain.Images.Count} images, and can have no more: convert it to one")
            { Path = image };
        }

        ulong size = chain.Images[0].Header?.DiskSize ?? BlockFile.Inspect(chain.Images[0].File.Buffered).Size;
        bool isBeside = string.Equals(Path.GetDirectoryName(from), Path.GetDirectoryName(to), StringComparison.Ordinal);
        Qcow2Creator.Create(overlay, Qcow2CreateOptions.Over(isBeside ? Path.GetFileName(from) : from, format, size));
    }
}
