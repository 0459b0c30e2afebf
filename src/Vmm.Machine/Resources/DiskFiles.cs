using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Machine.Resources;

/// <summary>The disks of a spec from their files.</summary>
public static class DiskFiles
{
    /// <summary>The spec with the images below each qcow2 image, as they are now: what a saved VM has to find again.</summary>
    /// <exception cref="BlockException">One cannot be opened, or is in use.</exception>
    public static VmSpec WithBacking(VmSpec spec) => spec.Disks.Any(disk => disk.Format == DiskFormat.Qcow2)
        ? spec with { Disks = [.. spec.Disks.Select(disk => disk.Format == DiskFormat.Qcow2 ? WithBacking(disk) : disk)] }
        : spec;

    /// <summary>Opens and locks a disk with this process's own rights.</summary>
    /// <param name="disk">The disk; with its images below, when it has to have these.</param>
    /// <param name="note">Takes remarks for the user; null when nobody reads them.</param>
    /// <exception cref="BlockException">It cannot be opened, is in use, or has other images below.</exception>
    internal static IDiskBackend Open(DiskSpec disk, Action<string>? note)
    {
        if (disk.Nbd is { } nbd)
        {
            return NbdDisks.Open(disk, NbdDisks.Dialer(nbd), note);
        }

        if (disk.Rbd is not null)
        {
            return RbdDisks.Open(disk, note);
        }

        if (disk.Format == DiskFormat.Qcow2)
        {
            using DiskImageChain chain = DiskImageChain.Open(disk.Path, Options(disk));
            if (disk.Backing is { } wanted && !BackingOf(chain).SequenceEqual(wanted))
            {
                throw new BlockException(BlockErrorKind.NotADisk, $"disk {disk.Path} was rebased: {Difference(wanted, BackingOf(chain))}")
                {
                    Path = disk.Path,
                };
            }

            return ToDisk(chain, note, threads: null);
        }

        RawFileBackend raw = RawFileBackend.Open(disk.Path, Options(disk));
        if (note is not null && RawContent.Remark(raw) is { } remark)
        {
            note(remark);
        }

        return raw;
    }

    /// <summary>Makes a disk of files that somebody else opened and locked.</summary>
    /// <param name="disk">The disk, with its images below.</param>
    /// <param name="take">Gives the descriptor of that name; null when it was not passed.</param>
    /// <param name="index">Number of the disk in the names.</param>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    /// <param name="threads">Starts and confines the thread of an image's tables; null: it is a thread as others.</param>
    /// <exception cref="BlockException">Not a disk this can use.</exception>
    internal static IDiskBackend FromDescriptors(
        DiskSpec disk, Func<string, FileDescriptorHandle?> take, int index, Action<string>? note, IIoThreads? threads)
    {
        if (disk.Format == DiskFormat.Raw)
        {
            return File(disk.Path, Options(disk), take, index, 0);
        }

        List<ChainImage> images = [];
        using DiskImageChain chain = DiskImageChain.Of(images);
        RawFileOptions top = Options(disk) with { IsImage = true }, below = top with { ReadOnly = true };
        images.Add(new ChainImage(File(disk.Path, top, take, index, 0), ImageFormat.Qcow2));
        foreach (BackingSpec image in disk.Backing ?? [])
        {
            images.Add(new ChainImage(File(image.Path, below, take, index, images.Count), FormatOf(image.Format)));
        }

        return ToDisk(chain, note, threads);
    }

    /// <summary>The file of an image that comes on top of a disk.</summary>
    internal static RawFileBackend OverlayFromDescriptors(string path, Func<string, FileDescriptorHandle?> take, int index) =>
        File(path, new RawFileOptions { IsImage = true }, take, index, 0);

    /// <summary>What is another image than it was, for a message.</summary>
    internal static string Difference(IReadOnlyList<BackingSpec> before, IReadOnlyList<BackingSpec> now)
    {
        int at = 0;
        while (at < before.Count && at < now.Count && before[at] == now[at])
        {
            at++;
        }

        return $"image {at + 1} below it was {Name(before, at)}, and is {Name(now, at)} now";

        static string Name(IReadOnlyList<BackingSpec> images, int at) =>
            at < images.Count ? $"{images[at].Path} ({Names.Of(images[at].Format)})" : "none";
    }

    private static DiskSpec WithBacking(DiskSpec disk)
    {
        using DiskImageChain chain = DiskImageChain.Open(disk.Path, Options(disk));
        return disk with { Backing = BackingOf(chain) };
    }

    private static RawFileOptions Options(DiskSpec disk) =>
        new() { ReadOnly = disk.ReadOnly, Cache = disk.Cache == DiskCache.Direct ? DiskCacheMode.Direct : DiskCacheMode.Buffered };

    private static RawFileBackend File(
        string path, RawFileOptions options, Func<string, FileDescriptorHandle?> take, int index, int layer)
    {
        string name = ResourceNames.Disk(index, layer);
        FileDescriptorHandle buffered = take(name) ?? throw new ArgumentException($"descriptor \"{name}\" was not passed", nameof(take));
        return RawFileBackend.FromDescriptors(path, options, buffered, take(ResourceNames.DirectDisk(index, layer)));
    }

    /// <summary>How an image of a machine is used: the thread of its tables is confined as that, whoever needs it first.</summary>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    /// <param name="threads">Starts and confines that thread; null: it is a thread as others.</param>
    internal static Qcow2DiskOptions ImageOptions(Action<string>? note, IIoThreads? threads)
    {
        IIoThreads? own = threads?.With(BlockFile.ImageNeeds);
        return new Qcow2DiskOptions
        {
            Damaged = damage => note?.Invoke(damage.Message),
            Start = own is null ? null : own.Start,
            Ready = own is null ? null : own.Ready,
        };
    }

    private static Qcow2Disk ToDisk(DiskImageChain chain, Action<string>? note, IIoThreads? threads) =>
        chain.ToDisk(ImageOptions(note, threads));

    private static BackingSpec[] BackingOf(DiskImageChain chain) =>
    [
        .. chain.Images.Skip(1).Select(image =>
            new BackingSpec(image.File.Path, image.Format == ImageFormat.Qcow2 ? DiskFormat.Qcow2 : DiskFormat.Raw)),
    ];

    private static ImageFormat FormatOf(DiskFormat format) => format == DiskFormat.Qcow2 ? ImageFormat.Qcow2 : ImageFormat.Raw;
}
