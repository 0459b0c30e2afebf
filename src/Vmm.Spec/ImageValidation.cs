namespace Vmm.Spec;

/// <summary>The rules of disks that vmmd makes over its images.</summary>
internal static class ImageValidation
{
    /// <summary>Longest name of an image.</summary>
    internal const int LongestName = 64;

    private const ulong MostBytes = 1ul << 46; // as large as any disk that vmmd makes

    internal static void Check(DiskSpec disk, string path, SpecComplaints check)
    {
        if (disk.Image is not { } image)
        {
            check.Require(disk.Path.Length > 0, path + ".path", "is missing");
            check.Require(disk.Size is null, path + ".size", "is of a disk that is made over an image");
            return;
        }

        check.Require(IsName(image), path + ".image",
            $"is no name of an image: expected 1 to {LongestName} letters, digits, '.', '_' or '-', a letter or digit first");
        check.Require(disk is { Path.Length: 0, IsRemote: false, Backing: null }, path + ".image", "stands in place of path, nbd and rbd");
        check.Require(disk.Size is not { } size || (size.Bytes is > 0 and <= MostBytes && size.Bytes % 512 == 0), path + ".size",
            $"{disk.Size?.Bytes ?? 0} bytes, expected whole sectors of 512 bytes, at most {MostBytes >> 40} TiB");
    }

    private static bool IsName(string name) => name.Length is > 0 and <= LongestName && char.IsAsciiLetterOrDigit(name[0])
        && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');
}
