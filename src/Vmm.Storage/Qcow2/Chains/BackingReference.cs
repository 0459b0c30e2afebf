namespace Vmm.Storage.Qcow2;

/// <summary>A file that is to be opened as an image of a chain.</summary>
/// <param name="Path">Its whole path.</param>
/// <param name="Format">How its content lies in it.</param>
/// <param name="Of">The image that names it; null for the top.</param>
internal sealed record BackingReference(string Path, ImageFormat Format, string? Of)
{
    /// <summary>What an image says of the file below it; null when it has none.</summary>
    /// <param name="header">The image's header.</param>
    /// <param name="image">The image's whole path.</param>
    /// <exception cref="BlockException">The name or the format is nothing that can be opened.</exception>
    internal static BackingReference? From(Qcow2Header header, string image)
    {
        if (header.BackingFile is not { } name)
        {
            return null;
        }

        if (name.Any(char.IsControl) || name.Contains('\uFFFD', StringComparison.Ordinal))
        {
            throw Refused(image, "names a backing file with characters that no file name should have");
        }

        if (HasProtocol(name))
        {
            throw Refused(image, $"has the backing file \"{name}\", which is no file: only files and block devices can be below an image "
                + "('qemu-img rebase -u' names another one)");
        }

        // relative to the image's folder (qcow2.rst, "Header", byte 8)
        string path = System.IO.Path.GetFullPath(name, System.IO.Path.GetDirectoryName(image)!);
        return new BackingReference(path, FormatOf(header.BackingFormat, image, name), image);
    }

    private static ImageFormat FormatOf(string? format, string image, string name) => format switch
    {
        "raw" => ImageFormat.Raw,
        "qcow2" => ImageFormat.Qcow2,
        null => throw Refused(image, $"does not say of which format its backing file {name} is, and formats are not guessed: "
            + $"'qemu-img rebase -u -F raw -b {name} {image}' (or -F qcow2) says it"),
        _ => throw Refused(image, $"says that its backing file {name} is of format \"{Printable(format)}\"; known are raw and qcow2"),
    };

    // As QEMU tells "nbd://host/x" and "json:{…}" from a file: a colon before the first slash.
    private static bool HasProtocol(string name)
    {
        int end = name.AsSpan().IndexOfAny(':', '/');
        return end > 0 && name[end] == ':';
    }

    private static string Printable(string text) => new([.. text.Take(32).Select(c => char.IsControl(c) ? '?' : c)]);

    private static BlockException Refused(string image, string why) =>
        new(BlockErrorKind.NotADisk, $"disk {image} {why}") { Path = image };
}
