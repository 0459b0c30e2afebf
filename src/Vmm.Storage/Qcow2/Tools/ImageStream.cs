using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>
/// Brings into an image what it sees through images below it, so that it needs them no more. The disk has the same content before and
/// after; when this is cut off, it goes on where it was the next time.
/// </summary>
public static class ImageStream
{
    private const uint Chunk = 4 << 20;

    /// <summary>Streams.</summary>
    /// <param name="path">The image.</param>
    /// <param name="baseFile">The image of its chain on which it stands afterwards; null: on none.</param>
    /// <param name="progress">What to tell.</param>
    /// <exception cref="BlockException">An image of the chain cannot be opened, the base is not in it, or the host failed.</exception>
    public static void Run(string path, string? baseFile, ToolProgress? progress = null)
    {
        progress ??= ToolProgress.None;
        using DiskImageChain chain = DiskImageChain.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered });
        int bound = baseFile is null ? chain.Images.Count : ChainPlace.Find(chain, baseFile);
        (string? name, string? format) = baseFile is null ? (null, null) : ChainPlace.NameOf(chain.Images, bound);
        using Qcow2Disk disk = chain.ToDisk();
        Run(disk, bound, name, format, progress);
    }

    /// <summary>The same with a disk that is open.</summary>
    internal static void Run(Qcow2Disk disk, int bound, string? name, string? format, ToolProgress progress)
    {
        ulong size = disk.Geometry.CapacityBytes;
        using (ChainPopulate populate = new(disk, bound))
        {
            progress.Begin(size);
            for (ulong at = 0; at < size; at += Chunk)
            {
                uint length = (uint)Math.Min(Chunk, size - at);
                Check(disk, populate.Bring(at, length), $"cannot be streamed at byte {at}");
                progress.Advance(length);
            }

            Check(disk, populate.Flush(), "cannot be made stable; what was written last may be lost");
        }

        disk.ChangeBacking(name, format);
    }

    private static void Check(Qcow2Disk disk, DiskStatus status, string what)
    {
        if (status != DiskStatus.Ok)
        {
            string why = status == DiskStatus.NoSpace ? "no space left on its file system" : "the host fails requests";
            throw new BlockException(
                BlockErrorKind.Io, $"disk {disk.Path} {what}: {why}; the disk is as it was, and this can be done again")
            { Path = disk.Path, Status = status };
        }
    }
}
