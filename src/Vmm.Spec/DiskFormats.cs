namespace Vmm.Spec;

/// <summary>The rules of how a disk's content lies in its files.</summary>
internal static class DiskFormats
{
    /// <summary>Most images below one: as many as whoever opens a chain follows.</summary>
    private const int MostBacking = 200;

    private static readonly (string Ending, string What, string Instead)[] s_foreign =
    [
        (".vmdk", "a VMware disk", "convert it: qemu-img convert -O qcow2"),
        (".vhdx", "a Hyper-V disk", "convert it: qemu-img convert -O qcow2"),
        (".vhd", "a disk of Virtual PC or Hyper-V", "convert it: qemu-img convert -f vpc -O qcow2"),
        (".vdi", "a VirtualBox disk", "convert it: qemu-img convert -O qcow2"),
        (".ova", "an archive of a whole VM", "unpack it (tar -xf) and convert the disk in it: qemu-img convert -O qcow2"),
        (".xz", "compressed", "unpack it: unxz -k"),
        (".gz", "compressed", "unpack it: gunzip -k"),
        (".zst", "compressed", "unpack it: unzstd"),
        (".bz2", "compressed", "unpack it: bunzip2 -k"),
    ];

    /// <summary>
    /// Why a file of that name is no disk that a VM can have, and what to do; null when the name says nothing. Only the name counts, which
    /// no guest can change.
    /// </summary>
    internal static string? Foreign(string path)
    {
        foreach ((string ending, string what, string instead) in s_foreign)
        {
            if (path.EndsWith(ending, StringComparison.OrdinalIgnoreCase))
            {
                return $"{path} is {what} by its name: {instead} {path}; or say format=raw when its bytes are the disk";
            }
        }

        return null;
    }

    internal static void Check(DiskSpec disk, string path, SpecComplaints check)
    {
        check.Require(Enum.IsDefined(disk.Format), path + ".format", $"{(int)disk.Format} is of no known format, expected raw or qcow2");
        if (disk.Backing is not { } backing)
        {
            return;
        }

        check.Require(disk.Format == DiskFormat.Qcow2, path + ".backing", "needs format: qcow2");
        check.Require(backing.Count <= MostBacking, path + ".backing", $"{backing.Count} images, at most {MostBacking}");
        for (int i = 0; i < Math.Min(backing.Count, MostBacking); i++)
        {
            BackingSpec? image = backing[i];
            check.Require(image is { Path.Length: > 0 }, $"{path}.backing[{i}]", "has no path");
            check.Require(image is null || Enum.IsDefined(image.Format), $"{path}.backing[{i}]", "is of no known format");
        }
    }
}
