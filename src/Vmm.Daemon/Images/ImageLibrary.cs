using System.Text.Json;
using Vmm.Contracts.Rest;
using Vmm.Interop;

namespace Vmm.Daemon.Images;

/// <summary>
/// The folder of images: a folder each, with the disk and what is known of it. An image comes and goes by a rename of its folder, so that
/// it is whole or not there; what begins with a dot is unfinished, and is swept when the daemon starts.
/// </summary>
internal sealed class ImageLibrary
{
    private const string FactsName = "image.json";
    private const UnixFileMode ReadOnly = UnixFileMode.UserRead;
    private const UnixFileMode OwnerFolder = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly string _folder;

    /// <summary>Makes the folder, and removes what an earlier daemon did not finish.</summary>
    internal ImageLibrary(string folder)
    {
        _folder = folder;
        Directory.CreateDirectory(folder, OwnerFolder);
        foreach (string left in Directory.EnumerateDirectories(folder, ".*"))
        {
            Directory.Delete(left, recursive: true);
        }
    }

    /// <summary>Bytes that its file system has for what is imported.</summary>
    internal long FreeBytes => new DriveInfo(_folder).AvailableFreeSpace;

    /// <summary>All images, by name. One whose facts cannot be read is left out.</summary>
    internal IEnumerable<ImageInfo> List() => Directory.EnumerateDirectories(_folder)
        .Select(folder => Path.GetFileName(folder)!)
        .Where(IsName)
        .Order(StringComparer.Ordinal)
        .Select(Find)
        .OfType<ImageInfo>();

    /// <summary>One image; null: there is none of this name.</summary>
    internal ImageInfo? Find(string name)
    {
        try
        {
            ImageInfo? facts = IsName(name)
                ? JsonSerializer.Deserialize(File.ReadAllText(Path.Combine(_folder, name, FactsName)), RestJson.Default.ImageInfo)
                : null;
            return facts is { Format: "raw" or "qcow2", Sha256: not null, Source: not null, SourceSha256: not null }
                ? facts with { Name = name, Path = PathOf(name), UsedBy = [] }
                : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    /// <summary>Something has this name, be it an image or not.</summary>
    internal bool Has(string name) => Path.Exists(Path.Combine(_folder, name));

    /// <summary>The disk of an image of this name.</summary>
    internal string PathOf(string name) => Path.Combine(_folder, name, DiskOf(name));

    /// <summary>Begins an image: an empty folder of its own.</summary>
    /// <returns>The path of the disk that is to be written.</returns>
    /// <exception cref="IOException">It cannot be made.</exception>
    internal string Begin(string name)
    {
        string part = PartOf(name);
        Directory.CreateDirectory(part, OwnerFolder);
        return Path.Combine(part, DiskOf(name));
    }

    /// <summary>The disk is whole: it becomes read only and gets its name. Everything is stable when this returns.</summary>
    /// <exception cref="IOException">It cannot be written, or the name was taken meanwhile.</exception>
    internal void Complete(ImageInfo facts)
    {
        string part = PartOf(facts.Name), disk = Path.Combine(part, DiskOf(facts.Name)), text = Path.Combine(part, FactsName);
        File.SetUnixFileMode(disk, ReadOnly);
        File.WriteAllText(text, JsonSerializer.Serialize(facts with { UsedBy = [] }, RestJson.Default.ImageInfo));
        File.SetUnixFileMode(text, ReadOnly);
        foreach (string file in new[] { disk, text })
        {
            using Microsoft.Win32.SafeHandles.SafeFileHandle open = File.OpenHandle(file);
            RandomAccess.FlushToDisk(open);
        }

        HostFolder.Flush(part);
        Directory.Move(part, Path.Combine(_folder, facts.Name));
        HostFolder.Flush(_folder);
    }

    /// <summary>Nothing comes of an image that was begun, or it is complete and this does nothing.</summary>
    internal void Abandon(string name)
    {
        if (Directory.Exists(PartOf(name)))
        {
            Directory.Delete(PartOf(name), recursive: true);
        }
    }

    /// <summary>Removes an image. It is gone at once, or stays as it is.</summary>
    /// <exception cref="IOException">It cannot be removed.</exception>
    internal void Remove(string name)
    {
        string gone = Path.Combine(_folder, $".{name}.gone");
        Directory.Move(Path.Combine(_folder, name), gone);
        HostFolder.Flush(_folder); // what was answered as deleted does not come back
        Directory.Delete(gone, recursive: true);
    }

    /// <summary>A name that an image can have.</summary>
    internal static bool IsName(string? name) => name is { Length: > 0 and <= 64 } && char.IsAsciiLetterOrDigit(name[0])
        && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');

    // Its name is in it: a spec that cannot be read counts as its user when it has that name somewhere.
    private static string DiskOf(string name) => name + ".disk";

    private string PartOf(string name) => Path.Combine(_folder, $".{name}.part");
}
