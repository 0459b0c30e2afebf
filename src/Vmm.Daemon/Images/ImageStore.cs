using System.Collections.Concurrent;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Images;

/// <summary>Images as clients see them: what there is, who stands on it, and the work on it that takes time.</summary>
/// <param name="library">Where they are.</param>
/// <param name="vms">Who uses them.</param>
/// <param name="storage">Where files that are imported or exported may lie.</param>
internal sealed class ImageStore(ImageLibrary library, VmManager vms, StorageFolders storage)
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private readonly ConcurrentDictionary<string, bool> _importing = new(StringComparer.Ordinal);

    /// <summary>All images, by name.</summary>
    internal ImageList List() => new([.. library.List().Select(WithUsers)]);

    /// <summary>One image.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal ImageInfo Get(string name) => WithUsers(Find(name));

    /// <summary>Checks a wish and opens its file before there is a job for it.</summary>
    /// <returns>What imports it.</returns>
    /// <exception cref="ApiException">It makes no sense, the name is taken, or the file cannot be used.</exception>
    internal Func<Action<double>, CancellationToken, Task> Import(ImageRequest wish)
    {
        CheckFormat(wish.Format);
        if (!ImageLibrary.IsName(wish.Name))
        {
            throw Invalid("name: expected 1 to 64 letters, digits, . _ -, beginning with a letter or digit");
        }

        OpenSource(wish).Dispose(); // refused now, and opened again by the job: it may never come to run
        if (library.Has(wish.Name) || _importing.ContainsKey(wish.Name))
        {
            throw Taken(wish.Name);
        }

        return (progress, cancellation) =>
        {
            if (!_importing.TryAdd(wish.Name, true))
            {
                throw Taken(wish.Name); // another job of the same moment was first
            }

            try
            {
                using FileDescriptorHandle file = OpenSource(wish);
                _ = new ImageImport(library, wish, file).Run(progress, cancellation);
                return Task.CompletedTask;
            }
            finally
            {
                _importing.TryRemove(wish.Name, out _);
            }
        };
    }

    /// <summary>Checks a wish before there is a job for it.</summary>
    /// <returns>What exports the image.</returns>
    /// <exception cref="ApiException">It makes no sense, there is no such image, or the file cannot be made there.</exception>
    internal Func<Action<double>, CancellationToken, Task> Export(string name, ImageExportRequest wish)
    {
        CheckFormat(wish.Format);
        ImageInfo image = Find(name);
        if (!Path.IsPathRooted(wish.To))
        {
            throw Invalid("to: expected a whole path");
        }

        HoldTarget(wish, out _).Dispose();
        return (progress, cancellation) =>
        {
            Convert(image, wish, new ToolProgress(part => progress(0.99 * part), cancellation));
            return Task.CompletedTask;
        };
    }

    /// <summary>Deletes an image.</summary>
    /// <exception cref="ApiException">There is none, or something stands on it.</exception>
    internal void Remove(string name)
    {
        ImageInfo image = Find(name);
        using IDisposable held = vms.Disks.Delete(image.Path);
        IReadOnlyList<string> users = vms.WithInChain(image.Path);
        if (users.Count > 0)
        {
            throw InUse($"{name} has disks of {string.Join(", ", users)} over it: delete {(users.Count > 1 ? "those VMs" : "that VM")} "
                + "first, or free the disk from it (vmmctl vm stream)");
        }

        try
        {
            // No VM has it through a spec that was changed since, and no tool.
            RawFileOptions alone = new() { IsImage = true, Cache = DiskCacheMode.Buffered, VmOf = vms.NameOf };
            RawFileBackend.Open(image.Path, alone).Dispose();
            library.Remove(name);
        }
        catch (BlockException cause) when (cause.Kind == BlockErrorKind.InUse)
        {
            throw InUse(cause.Message, cause);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or BlockException)
        {
            throw new ApiException(507, "image-failed", "the image could not be removed", $"{name}: {cause.Message}", inner: cause);
        }
    }

    private void Convert(ImageInfo image, ImageExportRequest wish, ToolProgress progress)
    {
        using FolderFile folder = HoldTarget(wish, out string file);
        string target = Path.Combine(folder.HeldPath, file);
        try
        {
            ConvertOptions options = new() { SourceFormat = image.Format, TargetFormat = wish.Format ?? image.Format };
            ImageConvert.Run(image.Path, target, options, progress);
            File.SetUnixFileMode(target, OwnerFile);
        }
        catch (BlockException cause)
        {
            bool isFull = cause.InnerException is KernelException { Errno: Errno.ENOSPC };
            throw new ApiException(507, isFull ? "no-space" : "image-failed", "the copy could not be made",
                cause.Message.Replace(target, wish.To, StringComparison.Ordinal), inner: cause);
        }
    }

    private FolderFile HoldTarget(ImageExportRequest wish, out string file)
    {
        string full = Path.GetFullPath(wish.To, "/");
        file = Path.GetFileName(full);
        try
        {
            if (file.Length is 0 or > 200 || file.StartsWith('.') || file.Any(char.IsControl))
            {
                throw new StorageException(wish.To, "is no name for a file: expected 1 to 200 characters, not beginning with a dot");
            }

            FolderFile folder = storage.HoldFolder(Path.GetDirectoryName(full)!);
            if (Path.Exists(Path.Combine(folder.HeldPath, file)))
            {
                folder.Dispose();
                throw new StorageException(wish.To, "is there already: nothing is overwritten");
            }

            return folder;
        }
        catch (StorageException cause)
        {
            throw new ApiException(422, "image-refused", "the copy cannot be made there", cause.Message, inner: cause);
        }
    }

    private FileDescriptorHandle OpenSource(ImageRequest wish)
    {
        try
        {
            FileDescriptorHandle file = Path.IsPathRooted(wish.Path) ? storage.Open(wish.Path, writable: false)
                : throw new StorageException(wish.Path, "is relative: give the whole path");
            if (BlockFile.Inspect(file).Kind == BlockFileKind.RegularFile)
            {
                return file;
            }

            file.Dispose();
            throw new StorageException(wish.Path, "is a block device: images are imported from files");
        }
        catch (Exception cause) when (cause is StorageException or KernelException)
        {
            throw new ApiException(422, "image-refused", "the file cannot be imported", cause.Message, inner: cause);
        }
    }

    private ImageInfo Find(string name) => library.Find(name) ?? throw new ApiException(
        404, "image-not-found", "no such image", $"{name}: there is no image of this name; 'vmmctl image list' shows those there are");

    private ImageInfo WithUsers(ImageInfo image) => image with { UsedBy = vms.WithInChain(image.Path) };

    private static void CheckFormat(string? format)
    {
        if (format is not (null or "raw" or "qcow2"))
        {
            throw Invalid("format: expected raw or qcow2");
        }
    }

    private static ApiException Invalid(string what) => new(422, "image-invalid", "such an image cannot be made", what);

    private static ApiException Taken(string name) =>
        new(409, "name-taken", "the name is taken", $"{name}: there is an image of this name, or one is being imported");

    private static ApiException InUse(string why, Exception? cause = null) =>
        new(409, "image-in-use", "the image is in use", why, inner: cause);
}
