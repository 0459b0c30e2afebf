using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// An image with all the files behind it, opened to read. Names of backing files are relative to the image that gives them, and their
/// formats are what it says: never what the file looks like.
/// </summary>
internal sealed class ImageChain : IDisposable
{
    /// <summary>Most images of a chain.</summary>
    internal const int MostImages = 200;

    private readonly List<IDiskLayer> _layers = [];
    private readonly HashSet<FileIdentity?> _seen = [];

    private readonly Func<string, FileDescriptorHandle> _open;

    private ImageChain(Func<string, FileDescriptorHandle> open) => _open = open;

    /// <summary>The images, from the top on.</summary>
    internal IReadOnlyList<IDiskLayer> Layers => _layers;

    /// <summary>Bytes of the disk.</summary>
    internal ulong Size => _layers[0].Size;

    /// <summary>Opens a chain.</summary>
    /// <param name="path">The top image.</param>
    /// <param name="format"><c>raw</c> or <c>qcow2</c>.</param>
    /// <param name="open">Opens a file to read, or throws; null: any that this user may read.</param>
    /// <exception cref="BlockException">One of them cannot be opened, has no known format, or is in its own chain.</exception>
    internal static ImageChain Open(string path, string format, Func<string, FileDescriptorHandle>? open = null)
    {
        ImageChain chain = new(open ?? OpenAny);
        chain.Follow(path, path, format);
        return chain;
    }

    /// <summary>Opens the chain of an image that is open; the file stays the caller's.</summary>
    /// <exception cref="BlockException">As of <see cref="Open"/>.</exception>
    internal static ImageChain OpenOver(IImageFile file)
    {
        ImageChain chain = new(OpenAny);
        chain._seen.Add(BlockFile.Identify(file.Path));
        chain._layers.Add(new Qcow2Layer(file, isOwner: false));
        (string? next, string format) = Backing(chain._layers[0]);
        chain.Follow(file.Path, next, format);
        return chain;
    }

    /// <summary>The name of the backing file as it is opened, with its format; null without one.</summary>
    /// <exception cref="BlockException">It has no format, or one that is not known.</exception>
    internal static (string? Path, string Format) Backing(IDiskLayer layer)
    {
        if (layer.Header?.BackingFile is not { } name)
        {
            return (null, "");
        }

        if (layer.Header.BackingFormat is not { } format)
        {
            throw new BlockException(
                BlockErrorKind.NotADisk,
                $"disk {layer.Path} does not say which format its backing file {name} has, and it is not guessed; say it: "
                    + $"vmmctl disk rebase --unsafe --backing {name} --backing-format raw|qcow2 {layer.Path}")
            { Path = layer.Path };
        }

        return (System.IO.Path.Combine(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(layer.Path)) ?? "/", name), format);
    }

    /// <summary>The part of the disk that begins at a byte: what the first image says that has it.</summary>
    internal DiskExtent Map(ulong offset, ulong most)
    {
        for (int depth = 0; ; depth++)
        {
            bool last = depth == _layers.Count - 1;
            if (offset >= _layers[depth].Size)
            {
                return new DiskExtent(offset, most, DiskExtentKind.Unallocated, depth, 0); // the backing file is smaller
            }

            DiskExtent extent = _layers[depth].Map(offset, most) with { Depth = depth };
            if (extent.Kind != DiskExtentKind.Unallocated || last)
            {
                return extent;
            }

            most = extent.Length;
        }
    }

    /// <summary>Reads a part of the disk.</summary>
    internal void Read(Span<byte> destination, ulong offset)
    {
        while (!destination.IsEmpty)
        {
            DiskExtent extent = Map(offset, (ulong)destination.Length);
            Span<byte> part = destination[..(int)extent.Length];
            if (extent.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed)
            {
                _layers[extent.Depth].Read(extent, part);
            }
            else
            {
                part.Clear();
            }

            destination = destination[part.Length..];
            offset += (uint)part.Length;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _layers.ForEach(layer => layer.Dispose());

    private void Follow(string top, string? next, string format)
    {
        try
        {
            while (next is not null)
            {
                string? problem = _layers.Count == MostImages
                        ? $"there are more than {MostImages} images in its chain; convert it to one image"
                    : !_seen.Add(BlockFile.Identify(next)) && _layers.Count > 0
                        ? $"the backing file {next} of {_layers[^1].Path} is in its own chain"
                    : null;
                if (problem is not null)
                {
                    throw new BlockException(BlockErrorKind.NotADisk, $"disk {top}: {problem}") { Path = top };
                }

                IDiskLayer layer = OpenLayer(next, format);
                _layers.Add(layer);
                (next, format) = Backing(layer);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    private static FileDescriptorHandle OpenAny(string path) => RawFileOpening.OpenFile(path, writable: false);

    private IDiskLayer OpenLayer(string path, string format)
    {
        switch (format)
        {
            case "raw":
                return new RawLayer(path, _open(path));
            case "qcow2":
                RawImageFile file = ImageFiles.OpenFound(path, _open(path));
                try
                {
                    return new Qcow2Layer(file, isOwner: true);
                }
                catch
                {
                    file.Dispose();
                    throw;
                }

            default:
                throw new BlockException(BlockErrorKind.NotADisk, $"disk {path}: format {format} is not known; raw and qcow2 are")
                { Path = path };
        }
    }
}
