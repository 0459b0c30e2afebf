using Vmm.Interop;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// Commits a disk that is in use into an image of its own chain, which is the disk then. The steps, one at a time: the chain is opened anew
/// with a file of the base that can be written (<see cref="Over"/>); the base becomes a disk of its own behind a mirror, which copies what
/// images above it have, and all that is written meanwhile (<see cref="Begin"/>); the base is the disk (<see cref="Target"/>,
/// <see cref="Commit"/>), or the chain is, opened anew (<see cref="GoBack"/>). The base is written only where images above it hide it, or
/// with what a guest writes at that moment: at every moment the chain is the disk, and from when all is mirrored the base is, too.
/// </summary>
public sealed class DiskCommitter
{
    private readonly Qcow2DiskOptions _options; // of the chain as it was
    private readonly TableWrites _writes = new();
    private readonly int _place;
    private readonly IImageFile _file;
    private IImageFile? _old; // the base's file in the chain as it was
    private Qcow2Disk? _source;
    private CommitBase? _base;
    private bool _isCommitted;

    /// <summary>Begins with an open disk; nothing is done yet.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="file">
    /// The base, opened with <see cref="RawFileBackend.OpenBase"/>; the committer's when this returns, the disk's from when it is in its
    /// chain.
    /// </param>
    /// <exception cref="BlockException">The disk is read only, or does not stand on that.</exception>
    public DiskCommitter(Qcow2Disk disk, RawFileBackend file) : this(disk, Find(disk, file), AsImage(file))
    {
    }

    /// <summary>The same with any file; it is not closed when this fails.</summary>
    internal DiskCommitter(Qcow2Disk disk, int place, IImageFile file) => (_options, _place, _file) = (disk.Options, place, file);

    /// <summary>How the base's content lies in its file.</summary>
    public ImageFormat Format => (_source ?? throw NotBegun()).Layers[_place].Format;

    /// <summary>Images that are needed no more then, the top first.</summary>
    public IReadOnlyList<ImageLayer> Above => [.. (_source ?? throw NotBegun()).Layers.Take(_place)];

    /// <summary>Images below the base, the nearest first.</summary>
    public IReadOnlyList<ImageLayer> Below => [.. (_source ?? throw NotBegun()).Layers.Skip(_place + 1)];

    /// <summary>The chain itself, which is the disk when nothing comes of this.</summary>
    public IDetachableDisk Source => _source ?? throw NotBegun();

    /// <summary>The base as a disk.</summary>
    public IDetachableDisk Target => (_base ?? throw NotBegun()).Disk;

    /// <summary>The same chain with the base's new file in it.</summary>
    /// <param name="files">The files of the disk, which is over.</param>
    /// <exception cref="BlockException">The host failed; the files are as they were.</exception>
    public Qcow2Disk Over(DetachedDisk files)
    {
        ImageLayer[] layers = [.. files.Layers];
        _old = layers[_place].File;
        layers[_place] = layers[_place] with { File = _file };
        return _source = Qcow2Disk.Over(layers, _options with { HearsWrites = _writes });
    }

    /// <summary>
    /// The chain stands with the new file. The base becomes a disk of its own, which grows to the size of the chain when it is smaller.
    /// </summary>
    /// <returns>What is to stand before both.</returns>
    /// <exception cref="BlockException">
    /// Somebody else uses the base, it is damaged, larger than the disk, or cannot become large enough: the chain is as it was.
    /// </exception>
    public DiskMirror Begin()
    {
        Qcow2Disk source = _source ?? throw NotBegun();
        if (!ReferenceEquals(_old, _file))
        {
            _old?.Dispose(); // its lock would keep the base from being written
        }

        _old = null;
        ulong bytes = source.Geometry.CapacityBytes;
        CommitBase target = new([.. source.Layers.Skip(_place)], _options, _writes);
        target.Open(bytes);
        try
        {
            if (target.Disk.Geometry.CapacityBytes is var has && has > bytes)
            {
                throw new BlockException(BlockErrorKind.BadSize, $"disk {_file.Path} has {has} bytes, more than the {bytes} of the disk, "
                    + "which would become larger: make the disk larger first (vmmctl vm resize-disk)")
                { Path = _file.Path };
            }

            DiskMirror mirror = new(new BorrowedDisk(source, LeaveSource), new BorrowedDisk(target.Disk), _place);
            source.Ending = target.End;
            _base = target;
            return mirror;
        }
        catch
        {
            target.End();
            throw;
        }
    }

    /// <summary>The base is the disk from now on: what the mirror closes as its source are the images above.</summary>
    public void Commit() => _isCommitted = true;

    /// <summary>
    /// The chain again, by the tables that the base has now. Nothing is in flight, and the mirror is gone.
    /// </summary>
    /// <param name="files">The files of the chain, which is over.</param>
    /// <exception cref="BlockException">The host failed; the files are as they were.</exception>
    public Qcow2Disk GoBack(DetachedDisk files)
    {
        ImageLayer[] layers = [.. files.Layers];
        layers[_place] = _base?.Again ?? layers[_place];
        return Qcow2Disk.Over(layers, _options);
    }

    // The mirror is over, and has not given the chain back: the base is the disk, or the device is gone.
    private void LeaveSource()
    {
        if (!_isCommitted)
        {
            _source!.Dispose();
            _base!.Again?.File.Dispose();
            return;
        }

        _source!.Ending = null;
        DetachedDisk files = _source.Detach();
        foreach (ImageLayer layer in files.Layers.Take(_place))
        {
            layer.File.Dispose();
        }

        _base!.Stay();
    }

    private static int Find(Qcow2Disk disk, RawFileBackend file)
    {
        if (!disk.IsWritable)
        {
            throw new BlockException(BlockErrorKind.NotADisk, $"disk {disk.Path} is read only") { Path = disk.Path };
        }

        FileIdentity wanted = BlockFile.Identify(file.Buffered);
        for (int i = 1; i < disk.Layers.Count; i++)
        {
            if (disk.Layers[i].File is RawImageFile image && image.Identity == wanted)
            {
                return i;
            }
        }

        string below = string.Join(", ", disk.Layers.Skip(1).Select(layer => layer.File.Path));
        throw new BlockException(BlockErrorKind.NotFound, $"disk {disk.Path} does not stand on {file.Path}; "
            + (below.Length == 0 ? "it has no backing file" : $"below it are: {below}"))
        { Path = file.Path };
    }

    private static RawImageFile AsImage(RawFileBackend file)
    {
        try
        {
            file.BecomeBase();
            return new RawImageFile(file);
        }
        catch (KernelException cause)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {file.Path}: {cause.Message}", cause) { Path = file.Path };
        }
    }

    private static InvalidOperationException NotBegun() => new("The commit has not begun.");
}
