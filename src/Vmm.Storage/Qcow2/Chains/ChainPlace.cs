using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>Finds an image within a chain, and says how the top names it.</summary>
internal static class ChainPlace
{
    /// <summary>Where a file is in the chain, counted from the top.</summary>
    /// <exception cref="BlockException">It is not below the top.</exception>
    internal static int Find(DiskImageChain chain, string path)
    {
        FileIdentity? wanted = BlockFile.Identify(path);
        for (int i = 1; wanted is not null && i < chain.Images.Count; i++)
        {
            if (BlockFile.Identify(chain.Images[i].File.Buffered) == wanted)
            {
                return i;
            }
        }

        throw NotBelow(chain.Images[0].File.Path, path, [.. chain.Images.Skip(1).Select(image => image.File.Path)]);
    }

    /// <summary>The same for a disk that is open, by the path or by the last part of it when that is clear.</summary>
    /// <exception cref="BlockException">It is not below the top.</exception>
    internal static int Find(Qcow2Disk disk, string path)
    {
        string[] below = [.. disk.Layers.Skip(1).Select(layer => layer.File.Path)];
        int[] found = [.. Enumerable.Range(0, below.Length).Where(i => IsSame(below[i], path))];
        found = found.Length > 0 ? found : [.. Enumerable.Range(0, below.Length).Where(i => IsSame(Path.GetFileName(below[i]), path))];
        return found.Length == 1 ? found[0] + 1 : throw NotBelow(disk.Path, path, below);
    }

    /// <summary>The name and the format of an image of a chain as the top is to give them.</summary>
    internal static (string Name, string Format) NameOf(IReadOnlyList<ChainImage> images, int place) =>
        NameOf([.. images.Select(image => (image.File.Path, image.Format, image.Header))], place);

    /// <inheritdoc cref="NameOf(IReadOnlyList{ChainImage}, int)"/>
    internal static (string Name, string Format) NameOf(Qcow2Disk disk, int place) => NameOf(
        [.. disk.Layers.Select((layer, i) => (layer.File.Path, layer.Format, disk.State.Chain.Layers[i].Header))], place);

    private static (string Name, string Format) NameOf((string Path, ImageFormat Format, Qcow2Header? Header)[] images, int place)
    {
        string format = images[place].Format == ImageFormat.Raw ? "raw" : "qcow2", given = images[place - 1].Header!.BackingFile!;
        bool sameFolder = string.Equals(
            Path.GetDirectoryName(images[0].Path), Path.GetDirectoryName(images[place - 1].Path), StringComparison.Ordinal);
        return (sameFolder ? given : images[place].Path, format); // names are relative to the folder of the image that gives them
    }

    private static BlockException NotBelow(string top, string path, string[] below) => new(
        BlockErrorKind.NotFound,
        $"disk {top} does not stand on {path}; "
            + (below.Length == 0 ? "it has no backing file" : $"below it are: {string.Join(", ", below)}"))
    { Path = path };

    private static bool IsSame(string one, string other) => string.Equals(one, other, StringComparison.Ordinal);
}
