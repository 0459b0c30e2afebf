using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Storage;

/// <summary>
/// The file that a disk is copied to, or goes on in: made here, in a storage folder, under a name that nothing has, and removed when
/// nothing comes of that.
/// </summary>
internal static class CopyTarget
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Makes a raw disk; its name is on the disk when this returns. It takes no space yet.</summary>
    /// <param name="path">The whole path.</param>
    /// <param name="bytes">Its size.</param>
    /// <param name="storage">Where it may be.</param>
    /// <exception cref="StorageException">It is outside the storage folders, is there already, or cannot be made.</exception>
    internal static void MakeRaw(string path, ulong bytes, StorageFolders storage) => Make(path, storage, own =>
    {
        using SafeFileHandle file = File.OpenHandle(own, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
        RandomAccess.SetLength(file, bytes <= long.MaxValue ? (long)bytes : throw new IOException($"no file has {bytes} bytes"));
        RandomAccess.FlushToDisk(file);
    });

    /// <summary>Makes an empty qcow2 image; it is whole and its name on the disk when this returns.</summary>
    /// <param name="path">The whole path.</param>
    /// <param name="options">What it is like.</param>
    /// <param name="storage">Where it may be.</param>
    /// <exception cref="StorageException">It is outside the storage folders, is there already, or cannot be made.</exception>
    internal static void MakeImage(string path, Qcow2CreateOptions options, StorageFolders storage) => Make(path, storage, own =>
    {
        using RawImageFile file = ImageFiles.Open(own, writable: true);
        Qcow2Creator.Fill(file, options);
    });

    /// <summary>Sees to it that there is room for a new file.</summary>
    /// <param name="path">Its whole path.</param>
    /// <param name="needed">Bytes that will be written to it at least.</param>
    /// <param name="storage">Where it may be.</param>
    /// <exception cref="StorageException">There is not, or it is outside the storage folders.</exception>
    internal static void RequireRoom(string path, ulong needed, StorageFolders storage)
    {
        using FolderFile folder = Around(path, storage, out _);
        ulong free = (ulong)new DriveInfo(folder.HeldPath).AvailableFreeSpace;
        if (free < needed)
        {
            throw new StorageException(path, $"would need {needed >> 20} MiB, and its file system has {free >> 20} MiB left");
        }
    }

    /// <summary>Removes the file, if it is there.</summary>
    /// <exception cref="StorageException">The folder around it is not there.</exception>
    /// <exception cref="IOException">It cannot be removed.</exception>
    internal static void Remove(string path, StorageFolders storage)
    {
        using FolderFile folder = Around(path, storage, out string name);
        File.Delete(Path.Combine(folder.HeldPath, name));
        HostFolder.Flush(folder.HeldPath);
    }

    /// <summary>Removes an image that nobody uses.</summary>
    /// <exception cref="StorageException">Somebody uses it, or it is not there.</exception>
    /// <exception cref="IOException">It cannot be removed.</exception>
    internal static void RemoveUnlocked(string path, StorageFolders storage)
    {
        try
        {
            RawFileOptions alone = new() { IsImage = true, Cache = DiskCacheMode.Buffered };
            RawFileBackend.Open(path, alone, storage.Open(path, writable: true)).Dispose();
        }
        catch (BlockException cause)
        {
            throw new StorageException(path, $"is not removed: {cause.Message}", cause);
        }

        Remove(path, storage);
    }

    private static void Make(string path, StorageFolders storage, Action<string> fill)
    {
        using FolderFile folder = Around(path, storage, out string name);
        string own = Path.Combine(folder.HeldPath, name);
        bool isOurs = false;
        try
        {
            using (SafeFileHandle made = File.OpenHandle(own, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None))
            {
                isOurs = true;
                File.SetUnixFileMode(made, OwnerFile);
            }

            fill(own);
            HostFolder.Flush(folder.HeldPath);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or BlockException)
        {
            if (isOurs)
            {
                File.Delete(own);
            }

            bool isThere = !isOurs && Path.Exists(own) && cause.HResult == Errno.EEXIST;
            throw new StorageException(path, isThere ? "is there already: such a file is made anew, and none is overwritten"
                : $"cannot be made: {cause.Message}", cause);
        }
    }

    private static FolderFile Around(string path, StorageFolders storage, out string name)
    {
        string full = Path.GetFullPath(path, "/");
        name = Path.GetFileName(full);
        return name.Length is 0 or > 200 || name.StartsWith('.') || name.Any(char.IsControl)
            ? throw new StorageException(path, "is no name for a disk: expected 1 to 200 characters, not beginning with a dot")
            : storage.HoldFolder(Path.GetDirectoryName(full)!);
    }
}
