using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Daemon.Vms;

/// <summary>A disk that is to be committed, and into what.</summary>
/// <param name="Device">Its name.</param>
/// <param name="From">The disk as it is.</param>
/// <param name="To">The disk as it is then.</param>
/// <param name="Between">The images between the top and the base, as the images say.</param>
internal sealed record CommitPlan(string Device, DiskSpec From, DiskSpec To, IReadOnlyList<string> Between)
{
    /// <summary>For the inventory.</summary>
    internal DiskCommitRecord Record => new(Device, From.Path, To.Path, To.Format == DiskFormat.Qcow2);

    /// <summary>Finds the base, in what the images say now; a guest that took its worker over may have written that.</summary>
    /// <param name="vm">The VM's name, for errors.</param>
    /// <param name="device">The disk's name.</param>
    /// <param name="disk">The disk.</param>
    /// <param name="wish">How.</param>
    /// <param name="own">Files of the VM's disks.</param>
    /// <param name="storage">Where files may be.</param>
    /// <exception cref="ApiException">It cannot be committed like that.</exception>
    internal static CommitPlan Of(
        string vm, string device, DiskSpec disk, DiskCommitWish wish, IReadOnlyList<string> own, StorageFolders storage)
    {
        string? wrong = disk.Format != DiskFormat.Qcow2 ? $"{disk.Path} is no image: there is nothing below it"
            : disk.ReadOnly ? $"{disk.Path} is read only"
            : wish.BytesPerSecond is 0 ? "bytesPerSecond: 0, expected more, or none"
            : wish.Base is "" ? "base: expected a path"
            : null;
        if (wrong is not null)
        {
            throw Invalid($"{vm}: {wrong}");
        }

        List<(string Path, ImageFormat Format)> below = Below(vm, disk, storage);
        int[] found = wish.Base is null ? [.. Enumerable.Range(0, Math.Min(1, below.Count))]
            : Places(below, path => string.Equals(path, wish.Base, StringComparison.Ordinal)) is { Length: > 0 } whole ? whole
            : Places(below, path => string.Equals(Path.GetFileName(path), wish.Base, StringComparison.Ordinal));
        if (found.Length != 1)
        {
            throw Invalid($"{vm}: {disk.Path} " + (below.Count == 0 ? "has no backing file to commit to"
                : $"does not stand on {wish.Base}; below it are: {string.Join(", ", below.Select(image => image.Path))}"));
        }

        (string path, ImageFormat format) = below[found[0]];
        if (own.Contains(path, StringComparer.Ordinal))
        {
            throw Invalid($"{vm}: {path} is another disk of the VM");
        }

        DiskSpec to = disk with { Path = path, Format = format == ImageFormat.Qcow2 ? DiskFormat.Qcow2 : DiskFormat.Raw, Backing = null };
        return new CommitPlan(device, disk, to, [.. below.Take(found[0]).Select(image => image.Path)]);
    }

    private static int[] Places(List<(string Path, ImageFormat Format)> images, Func<string, bool> isIt) =>
        [.. Enumerable.Range(0, images.Count).Where(i => isIt(images[i].Path))];

    private static List<(string Path, ImageFormat Format)> Below(string vm, DiskSpec disk, StorageFolders storage)
    {
        try
        {
            List<(string Path, ImageFormat Format)> below = [];
            DiskImageChain.FindImages(
                disk.Path, (path, _) => storage.Open(path, writable: false), (path, format) => below.Add((path, format)));
            return below;
        }
        catch (Exception cause) when (cause is StorageException or BlockException or KernelException)
        {
            throw new ApiException(422, "disk-refused", "the images below cannot be found", $"{vm}: {cause.Message}", inner: cause);
        }
    }

    private static ApiException Invalid(string what) => new(422, "commit-invalid", "the disk cannot be committed like that", what);
}
