using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>Opens a file of a chain: to read and write, or to read only.</summary>
/// <param name="path">The whole path.</param>
/// <param name="writable">To read and write.</param>
/// <exception cref="BlockException">It is missing or forbidden.</exception>
public delegate FileDescriptorHandle ImageFileOpener(string path, bool writable);

/// <summary>An image of an open chain.</summary>
/// <param name="File">Its file, locked.</param>
/// <param name="Format">How its content lies in it.</param>
/// <param name="Header">What it said of itself when it was found; null for a raw one, and where somebody else found it.</param>
public sealed record ChainImage(RawFileBackend File, ImageFormat Format, Qcow2Header? Header = null);

/// <summary>
/// The files of a qcow2 disk: the image and those below it, each found by what the one above says of it. Only the top is ever written; all
/// are locked. What the images say is somebody else's word, perhaps a guest's: nothing is opened but through the caller's opener, nothing
/// is guessed, and the number of images and what is read of each are bounded.
/// </summary>
public sealed class DiskImageChain : IDisposable
{
    /// <summary>Most images of a chain.</summary>
    public const int MostImages = Tools.ImageChain.MostImages;

    private const int HeaderBytes = 64 << 10;

    private const ulong TablesAtLeast = 64 << 20; // whatever the size of clusters

    private IReadOnlyList<ChainImage> _images;

    private DiskImageChain(IReadOnlyList<ChainImage> images) => _images = images;

    /// <summary>The images, the top first; none any more once they are a disk.</summary>
    public IReadOnlyList<ChainImage> Images => _images;

    /// <summary>
    /// The most bytes that the top's file can come to have: what it has, with a place for each cluster of the disk, and the tables for
    /// that. It can be more than the disk's, since places that an internal snapshot has are not used again.
    /// </summary>
    public ulong MostBytes
    {
        get
        {
            if (_images[0].Header is not { } header)
            {
                throw new InvalidOperationException("Somebody else found these images.");
            }

            // An entry of L2 has 16 bytes at most, a refcount 8; a copy of each, and the tables above them, fit into as much again.
            ulong clusters = header.DiskSize >> header.Geometry.ClusterBits, tables = clusters * (16 + 8) * 2;
            return BlockFile.Inspect(_images[0].File.Buffered).Size + header.DiskSize + tables + TablesAtLeast;
        }
    }

    /// <summary>The same for an image of any clusters that is to have a disk of so many bytes.</summary>
    /// <param name="file">Bytes of its file now.</param>
    /// <param name="disk">Bytes of its disk.</param>
    public static ulong MostBytesOf(ulong file, ulong disk) => file + disk + (disk / 512 * (16 + 8) * 2) + TablesAtLeast;

    /// <summary>Finds, opens and locks all images.</summary>
    /// <param name="path">The top, a qcow2 image.</param>
    /// <param name="options">How the top is opened; those below it are opened the same way, to read only.</param>
    /// <param name="open">Opens a file; null: with this process's own rights.</param>
    /// <exception cref="BlockException">One is missing, forbidden, in use, damaged, or of unknown format; the message names it and the
    /// image that wants it.</exception>
    public static DiskImageChain Open(string path, RawFileOptions options, ImageFileOpener? open = null)
    {
        List<ChainImage> images = [];
        try
        {
            ImageOpening opening = new(options, open ?? RawFileOpening.OpenFile, images);
            BackingReference? next = new(Path.GetFullPath(path, Environment.CurrentDirectory), ImageFormat.Qcow2, Of: null);
            while (next is { } image)
            {
                next = opening.Add(image);
            }

            return new DiskImageChain(images);
        }
        catch (KernelException cause)
        {
            string file = images.Count > 0 ? images[^1].File.Path : path;
            Close(images);
            throw new BlockException(BlockErrorKind.Io, $"disk {file}: {cause.Message}", cause) { Path = file };
        }
        catch
        {
            Close(images);
            throw;
        }
    }

    /// <summary>What an open image says of itself.</summary>
    /// <exception cref="BlockException">It is none, or one that this cannot read.</exception>
    public static Qcow2Header ReadHeader(RawFileBackend file)
    {
        try
        {
            return ImageOpening.ReadHeader(file, BlockFile.Inspect(file.Buffered).Size);
        }
        catch (KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {file.Path}: {cause.Message}", cause) { Path = file.Path };
        }
    }

    /// <summary>Finds the files below an image, as the images say now; nothing is locked or kept open.</summary>
    /// <param name="path">The top, a qcow2 image.</param>
    /// <param name="open">Opens a file.</param>
    /// <param name="found">Gets the whole path of each; it has those that were found also when this fails.</param>
    /// <exception cref="BlockException">One cannot be opened, or is no image.</exception>
    public static void FindNames(string path, ImageFileOpener open, ICollection<string> found) =>
        FindImages(path, open, (below, _) => found.Add(below));

    /// <summary>The same, with the format of each.</summary>
    /// <param name="path">The top, a qcow2 image.</param>
    /// <param name="open">Opens a file.</param>
    /// <param name="found">Told of each, the nearest first, also when this fails later.</param>
    /// <exception cref="BlockException">One cannot be opened, or is no image.</exception>
    public static void FindImages(string path, ImageFileOpener open, Action<string, ImageFormat> found)
    {
        BackingReference? next = new(path, ImageFormat.Qcow2, Of: null);
        byte[] start = new byte[HeaderBytes];
        for (int i = 0; next is { Format: ImageFormat.Qcow2 } image && i < MostImages; i++)
        {
            using FileDescriptorHandle file = open(image.Path, writable: false);
            int read = BlockFile.ReadAt(file, start, 0);
            next = BackingReference.From(Qcow2Header.Parse(start.AsSpan(0, read), image.Path), image.Path);
            if (next is { } below)
            {
                found(below.Path, below.Format);
            }
        }
    }

    /// <summary>Takes over images that another process found, opened and locked, the top first.</summary>
    public static DiskImageChain Of(IReadOnlyList<ChainImage> images) => new(images);

    /// <summary>The disk that these images are. It owns them from now on, also when this fails.</summary>
    /// <exception cref="BlockException">An image is none, damaged, or uses what is not supported.</exception>
    public Qcow2Disk ToDisk(Qcow2DiskOptions? options = null)
    {
        List<ImageLayer> layers = new(_images.Count);
        try
        {
            foreach (ChainImage image in _images)
            {
                layers.Add(new ImageLayer(new RawImageFile(image.File), image.Format));
            }
        }
        catch (KernelException cause)
        {
            layers.ForEach(layer => layer.File.Dispose());
            string file = _images[layers.Count].File.Path;
            throw new BlockException(BlockErrorKind.Io, $"disk {file}: {cause.Message}", cause) { Path = file };
        }

        _images = [];
        return Qcow2Disk.Open(layers, options);
    }

    /// <inheritdoc/>
    public void Dispose() => Close(_images);

    // The top last: whoever gets its lock finds the bases free.
    private static void Close(IReadOnlyList<ChainImage> images)
    {
        for (int i = images.Count - 1; i >= 0; i--)
        {
            images[i].File.Dispose();
        }
    }
}
