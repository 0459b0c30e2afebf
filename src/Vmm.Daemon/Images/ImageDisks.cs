using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Images;

/// <summary>
/// Disks of a new VM that stand on images: a differencing disk each, in the VM's own folder. The spec that is stored names the files, as if
/// they had been there; what is written for the same VM is the same every time, so that a create may be repeated.
/// </summary>
/// <param name="library">The images.</param>
/// <param name="folders">Where disks of VMs are.</param>
internal sealed class ImageDisks(ImageLibrary library, VmFolders folders)
{
    /// <summary>The folders of VMs.</summary>
    internal VmFolders Folders => folders;

    /// <summary>The spec with files in place of images; nothing is made yet.</summary>
    /// <param name="yaml">Its text.</param>
    /// <param name="folder">What relative paths in it are relative to.</param>
    /// <param name="spec">It, as it was read.</param>
    /// <returns>Null when it names no image.</returns>
    /// <exception cref="ApiException">There is no such image, a size is too small, or the text cannot be changed by a program.</exception>
    internal ImageDiskPlan? Plan(string yaml, string folder, VmSpec spec)
    {
        List<(string Name, ImageInfo Image, ulong Bytes)> made = [];
        List<SpecProblem> problems = [];
        string? relative = folder.Length > 0 ? folder : null;
        for (int i = 0; i < spec.Disks.Count; i++)
        {
            DiskSpec wish = spec.Disks[i];
            if (wish.Image is not { } name)
            {
                continue;
            }

            if (library.Find(name) is not { } image)
            {
                problems.Add(new SpecProblem($"disks[{i}].image",
                    $"there is no image {name} on this host: 'vmmctl image list' shows those there are"));
                continue;
            }

            ulong bytes = wish.Size?.Bytes ?? (ulong)image.SizeBytes;
            if (bytes < (ulong)image.SizeBytes)
            {
                problems.Add(new SpecProblem($"disks[{i}].size", $"{bytes} bytes, and the image {name} has {image.SizeBytes}: a disk over "
                    + "an image is not smaller than it"));
                continue;
            }

            string file = $"disk{i}.qcow2";
            made.Add((file, image, bytes));
            DiskSpec disk = wish with
            {
                Source = wish.Source with
                {
                    Image = null,
                    Size = null,
                    Path = Path.Combine(folders.PathOf(spec.Name), file),
                    Format = DiskFormat.Qcow2,
                },
            };
            yaml = Replace(yaml, relative, i, disk);
            spec = spec with { Disks = [.. spec.Disks.Select((old, j) => j == i ? disk : old)] };
        }

        return problems.Count > 0 ? throw ApiException.OfSpec(new SpecException(problems))
            : made.Count > 0 ? new ImageDiskPlan(yaml, spec, made, folders) : null;
    }

    private static string Replace(string yaml, string? folder, int index, DiskSpec disk)
    {
        try
        {
            return SpecEdit.ReplaceDisk(yaml, folder, index, disk) ?? throw new ApiException(
                422, "spec-invalid", "the spec cannot be changed by a program", $"disks[{index}].image: write the disks as a list with a "
                    + "line each (- image: NAME), so that the file of the disk can be put there");
        }
        catch (SpecException cause)
        {
            throw ApiException.OfSpec(cause);
        }
    }
}

/// <summary>Disks over images that are about to be made.</summary>
/// <param name="text">The spec with their files, as text.</param>
/// <param name="spec">The same.</param>
/// <param name="disks">File, image and bytes of each.</param>
/// <param name="folders">Where disks of VMs are.</param>
internal sealed class ImageDiskPlan(
    string text, VmSpec spec, IReadOnlyList<(string Name, ImageInfo Image, ulong Bytes)> disks, VmFolders folders)
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    internal string Text => text;

    internal VmSpec Spec => spec;

    /// <summary>The images, as disks: nobody may delete them before the spec is stored.</summary>
    internal IEnumerable<DiskSpec> Images => disks.Select(disk => new DiskSpec { Path = disk.Image.Path });

    /// <summary>Makes the disks, in a folder that gets its name when the VM is in the inventory.</summary>
    /// <exception cref="ApiException">They cannot be made; nothing is left.</exception>
    internal VmFolderChange Make()
    {
        VmFolderChange folder = folders.Begin(spec.Name);
        try
        {
            foreach ((string name, ImageInfo image, ulong bytes) in disks)
            {
                string path = Path.Combine(folder.Pending, name);
                if (!File.Exists(image.Path))
                {
                    throw new IOException($"the image {image.Name} was deleted");
                }

                ImageFormat format = image.Format is "qcow2" ? ImageFormat.Qcow2 : ImageFormat.Raw;
                Qcow2Creator.Create(path, Qcow2CreateOptions.Over(image.Path, format, bytes));
                File.SetUnixFileMode(path, OwnerFile);
            }

            HostFolder.Flush(folder.Pending);
            return folder;
        }
        catch (Exception cause)
        {
            folder.Dispose();
            throw cause is IOException or UnauthorizedAccessException or BlockException
                ? new ApiException(507, "disk-create-failed", "the disk could not be made", $"{spec.Name}: {cause.Message}", inner: cause)
                : cause;
        }
    }
}
