using Microsoft.Win32.SafeHandles;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Saved;

/// <summary>
/// The folder of a saved VM, in a storage folder of this host. It is written under another name, <c>.NAME.partial</c>, and gets its own
/// name when everything is on the disk. The folder around it is held, so that nobody can exchange it meanwhile.
/// </summary>
internal sealed class SavedVmFolder : IDisposable
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const long LongestNote = 4 << 20;
    private const string RestoredSuffix = ".restored";

    private readonly StorageFolders _storage;
    private readonly FolderFile _around;
    private readonly List<(string Name, FileDescriptorHandle File)> _files = [];
    private readonly string _name;
    private bool _isCommitted;

    private SavedVmFolder(StorageFolders storage, string path)
    {
        Folder = Path.GetFullPath(path, "/");
        _storage = storage;
        _name = Path.GetFileName(Folder);
        if (_name.Length is 0 or > 200 || _name.StartsWith('.') || _name.Any(char.IsControl))
        {
            throw new StorageException(
                path, "is no name for the folder of a saved VM: expected 1 to 200 characters, not beginning with a dot");
        }

        _around = storage.HoldFolder(Path.GetDirectoryName(Folder)!);
    }

    /// <summary>The whole path.</summary>
    internal string Folder { get; }

    /// <summary>Names and files that are written.</summary>
    internal IReadOnlyList<(string Name, FileDescriptorHandle File)> Files => _files;

    private string Own => Path.Combine(_around.HeldPath, _name);

    private string Partial => Path.Combine(_around.HeldPath, $".{_name}.partial");

    /// <summary>Begins a folder with an empty file for each part of a VM of this spec.</summary>
    /// <exception cref="StorageException">It is outside the storage folders, is there already, or cannot be made.</exception>
    internal static SavedVmFolder Begin(StorageFolders storage, string path, VmSpec spec)
    {
        SavedVmFolder folder = new(storage, path);
        try
        {
            folder.Begin(spec);
            return folder;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            folder.Discard();
            folder.Dispose();
            throw new StorageException(path, $"cannot be made: {cause.Message}", cause);
        }
        catch
        {
            folder.Dispose();
            throw;
        }
    }

    /// <summary>Finds the VM that is saved in a folder.</summary>
    /// <param name="storage">Where folders may be.</param>
    /// <param name="path">The folder.</param>
    /// <param name="get">Finds a VM by its name.</param>
    /// <returns>The VM, and the folder, which is the caller's.</returns>
    /// <exception cref="ApiException">There is no saved VM, or it is not known.</exception>
    internal static (ManagedVm Vm, SavedVmFolder Folder) Find(StorageFolders storage, string path, Func<string, ManagedVm> get)
    {
        SavedVmFolder? folder = null;
        try
        {
            folder = At(storage, path);
            return (get(folder.ReadNote().Note.Name), folder);
        }
        catch (Exception cause) when (cause is StorageException or KernelException or IOException)
        {
            folder?.Dispose();
            throw new ApiException(422, "folder-refused", "the saved VM cannot be read", cause.Message, inner: cause);
        }
        catch
        {
            folder?.Dispose();
            throw;
        }
    }

    /// <summary>A folder that may be there, to read or to remove it.</summary>
    /// <exception cref="StorageException">It is outside the storage folders, or the folder around it is not there.</exception>
    internal static SavedVmFolder At(StorageFolders storage, string path) => new(storage, path);

    /// <summary>Bytes that can be written to its file system.</summary>
    internal ulong FreeBytes => (ulong)new DriveInfo(_around.HeldPath).AvailableFreeSpace;

    /// <summary>Bytes that the files take so far.</summary>
    internal ulong WrittenBytes => _files.Aggregate(0ul, (sum, part) => sum + BlockFile.AllocatedBytes(part.File));

    /// <summary>Brings everything to the disk, with the note, and gives the folder its name.</summary>
    /// <exception cref="IOException">It cannot be written.</exception>
    internal void Commit(SavedVmNote note)
    {
        using (SafeFileHandle file = File.OpenHandle(
            Path.Combine(Partial, SavedVmFiles.Record), FileMode.CreateNew, FileAccess.Write, FileShare.Read, FileOptions.None))
        {
            File.SetUnixFileMode(file, OwnerFile);
            RandomAccess.Write(file, note.ToBytes(), 0);
            RandomAccess.FlushToDisk(file);
        }

        foreach ((string name, FileDescriptorHandle file) in _files)
        {
            using SafeFileHandle same = File.OpenHandle(
                Path.Combine(Partial, name), FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            if (RandomAccess.GetLength(same) == 0)
            {
                File.Delete(Path.Combine(Partial, name)); // the VM has nothing for it
            }

            RandomAccess.FlushToDisk(same);
            file.Dispose();
        }

        _files.Clear();
        HostFolder.Flush(Partial);
        Directory.Move(Partial, Own);
        _isCommitted = true;
        HostFolder.Flush(_around.HeldPath);
    }

    /// <summary>Removes what this object has written.</summary>
    internal void Discard()
    {
        Close();
        Delete(Partial);
        if (_isCommitted)
        {
            Delete(Own);
        }
    }

    /// <summary>Removes what an earlier daemon has written of a VM, whole or not: the VM goes on, and it is not true any more.</summary>
    internal void DiscardOf(string vmId)
    {
        Delete(Partial);
        if (File.Exists(Path.Combine(Own, SavedVmFiles.Record)) && string.Equals(ReadNote().Note.Id, vmId, StringComparison.Ordinal))
        {
            Delete(Own);
        }
    }

    /// <summary>Reads vmmd's note.</summary>
    /// <exception cref="StorageException">There is none, or it is not sound.</exception>
    internal (SavedVmNote Note, VmSpec Spec) ReadNote()
    {
        string path = Path.Combine(Folder, SavedVmFiles.Record);
        if (File.Exists(Path.Combine(Own, SavedVmFiles.Record + RestoredSuffix)))
        {
            throw new StorageException(Folder, "was restored already: the VM went on from there, and its disks have changed since");
        }

        using FileDescriptorHandle file = _storage.Open(path, writable: false);
        byte[] bytes = new byte[(int)Math.Min((ulong)LongestNote, BlockFile.Inspect(file).Size)];
        return SavedVmNote.Read(path, bytes.AsSpan(0, BlockFile.ReadAt(file, bytes, 0)));
    }

    /// <summary>Opens the files that a worker restores a VM of this spec from, those that there are.</summary>
    /// <exception cref="StorageException">One cannot be opened.</exception>
    internal void OpenFiles(VmSpec spec)
    {
        foreach (string name in SavedVmFiles.Of(spec).Where(name => File.Exists(Path.Combine(Own, name))))
        {
            _files.Add((name, _storage.Open(Path.Combine(Folder, name), writable: false)));
        }
    }

    /// <summary>The VM goes on from here: nobody is to go on from here again.</summary>
    internal void MarkRestored()
    {
        string note = Path.Combine(Own, SavedVmFiles.Record);
        File.Move(note, note + RestoredSuffix, overwrite: true);
        HostFolder.Flush(Own);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Close();
        _around.Dispose();
    }

    private void Begin(VmSpec spec)
    {
        if (Path.Exists(Own))
        {
            throw new StorageException(Folder, "is there already: a saved VM gets a folder of its own; name another one, or delete it");
        }

        Delete(Partial); // of a vmmd that was killed
        Directory.CreateDirectory(Partial, OwnerFile | UnixFileMode.UserExecute);
        foreach (string name in SavedVmFiles.Of(spec))
        {
            using SafeFileHandle made = File.OpenHandle(
                Path.Combine(Partial, name), FileMode.CreateNew, FileAccess.ReadWrite, FileShare.ReadWrite, FileOptions.None);
            File.SetUnixFileMode(made, OwnerFile);
            nint number = made.DangerousGetHandle();
            made.SetHandleAsInvalid();
            _files.Add((name, new FileDescriptorHandle(number)));
        }
    }

    private static void Delete(string path)
    {
        if (new DirectoryInfo(path) is { Exists: true, LinkTarget: null })
        {
            Directory.Delete(path, recursive: true);
        }
    }

    private void Close()
    {
        _files.ForEach(part => part.File.Dispose());
        _files.Clear();
    }
}
