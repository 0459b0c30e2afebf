using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Writes what an image and those between have into a base of its chain. The image's disk has the same content before, meanwhile and after;
/// when this is cut off, it is done again. The images between are worth nothing afterwards, nor is any other image over the base.
/// </summary>
public static class ImageCommit
{
    /// <summary>Commits.</summary>
    /// <param name="path">The image.</param>
    /// <param name="baseFile">The image of its chain that gets the content; null: the one right below it.</param>
    /// <param name="deletes">The image and those between are removed when the base has everything.</param>
    /// <param name="progress">What to tell.</param>
    /// <returns>The base's file and its format.</returns>
    /// <exception cref="BlockException">A file of the chain cannot be opened or is in use, the base is not in it or cannot become large
    /// enough, or the host failed.</exception>
    public static (string Path, string Format) Run(string path, string? baseFile, bool deletes, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        (string target, int place) = MakeRoom(path, baseFile, progress);
        FileIdentity? written = BlockFile.Identify(target);
        DiskImageChain chain = DiskImageChain.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered }, (file, writable) =>
            RawFileOpening.OpenFile(file, writable || BlockFile.Identify(file) == written));
        IReadOnlyList<ChainImage> images = chain.Images;
        using Qcow2Disk disk = Claim(chain, place, target);
        (string name, string format) = ChainPlace.NameOf(images, place);
        Run(disk, from: 0, place, progress);
        string[] gone = [.. images.Take(place).Select(image => image.File.Path)];
        if (deletes)
        {
            Array.ForEach(gone, File.Delete); // the top first: none is left whose base is not there
        }
        else
        {
            disk.ChangeBacking(name, format);
        }

        return (target, format);
    }

    /// <summary>The same with a disk that is open: its base can be written, and the first image that goes down is said.</summary>
    internal static void Run(Qcow2Disk disk, int from, int place, ToolProgress progress)
    {
        ImageLayer layer = disk.Layers[place];
        bool isRaw = layer.Format == ImageFormat.Raw;
        Qcow2Disk? qcow2 = isRaw ? null : Qcow2Disk.Over([.. disk.Layers.Skip(place)], new Qcow2DiskOptions { KeepsFreed = true });
        try
        {
            IDiskBackend target = (IDiskBackend?)qcow2 ?? layer.File;
            ulong size = qcow2?.Geometry.CapacityBytes ?? layer.File.Length / 512 * 512, room = ChainCommit.RoomFor(disk, from);
            if (size < room)
            {
                throw new BlockException(BlockErrorKind.BadSize, $"disk {layer.File.Path} has {size} bytes, and needs {room}")
                { Path = layer.File.Path };
            }

            using ChainCommit commit = new(disk, from, place, target, size);
            progress.Begin(commit.Size);
            for (ulong at = 0; at < commit.Size; at += ChainCommit.MostBytes)
            {
                int length = (int)Math.Min(ChainCommit.MostBytes, commit.Size - at);
                Check(disk, layer, commit, commit.Write(at, length), $"at byte {at}");
                progress.Advance((ulong)length);
            }

            Check(disk, layer, commit, commit.Flush(), "at its end");
        }
        finally
        {
            _ = qcow2?.Detach(); // the files are the chain's
        }
    }

    // Gives the base the size of the image, before anything else. What is new in it reads as zeros, as it does through the image.
    private static (string Target, int Place) MakeRoom(string path, string? baseFile, ToolProgress progress)
    {
        string target, format;
        int place;
        ulong size, has;
        using (DiskImageChain chain = DiskImageChain.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered, ReadOnly = true }))
        {
            if (chain.Images.Count == 1)
            {
                throw new BlockException(BlockErrorKind.NotADisk, $"disk {path} has no backing file to commit to") { Path = path };
            }

            place = baseFile is null ? 1 : ChainPlace.Find(chain, baseFile);
            ChainImage image = chain.Images[place];
            (target, format) = (image.File.Path, image.Format == ImageFormat.Raw ? "raw" : "qcow2");
            size = chain.Images[0].Header!.DiskSize;
            has = image.Header?.DiskSize ?? BlockFile.Inspect(image.File.Buffered).Size;
        }

        if (has < size)
        {
            ImageResize.Run(target, format, size, shrink: false, progress);
        }

        return (target, place);
    }

    // The base becomes this program's alone; the chain is what it was when it was looked at.
    private static Qcow2Disk Claim(DiskImageChain chain, int place, string target)
    {
        using (chain)
        {
            if (place >= chain.Images.Count || chain.Images[place].File is not { } file
                || !string.Equals(file.Path, target, StringComparison.Ordinal))
            {
                string top = chain.Images[0].File.Path;
                throw new BlockException(BlockErrorKind.InUse, $"disk {top} does not stand on {target} any more") { Path = top };
            }

            if (!file.TryBecomeTop())
            {
                string holders = LockHolders.Describe(file.Buffered, vmOf: null, others: true);
                throw new BlockException(BlockErrorKind.InUse, $"disk {target} is used by {holders} as well, and would change under it")
                { Path = target };
            }

            return chain.ToDisk();
        }
    }

    private static void Check(Qcow2Disk disk, ImageLayer layer, ChainCommit commit, DiskStatus status, string where)
    {
        if (status != DiskStatus.Ok)
        {
            string why = !commit.TargetFailed ? "it cannot be read"
                : status == DiskStatus.NoSpace ? $"no space left on the file system of {layer.File.Path}"
                : $"the host fails requests of {layer.File.Path}";
            throw new BlockException(BlockErrorKind.Io,
                $"disk {disk.Path} cannot be committed {where}: {why}; its content is as it was, and this can be done again")
            { Path = commit.TargetFailed ? layer.File.Path : disk.Path, Status = status };
        }
    }
}
