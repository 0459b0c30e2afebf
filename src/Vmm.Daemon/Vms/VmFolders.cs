using Vmm.Interop;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The folders of disks that VMs own, one a VM, with its name: what the daemon made for a VM, and what was made beside that later
/// (snapshots), goes with the VM. A folder comes and goes under another name, so that whatever dies, the inventory says which of both it
/// was.
/// </summary>
internal sealed class VmFolders
{
    private const string Pending = ".pending";
    private const UnixFileMode OwnerFolder = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private readonly string _folder;

    /// <summary>Makes the folder around them.</summary>
    internal VmFolders(string folder)
    {
        _folder = folder;
        Directory.CreateDirectory(folder, OwnerFolder);
    }

    /// <summary>Where the disks of a VM are.</summary>
    internal string PathOf(string vm) => Path.Combine(_folder, vm);

    /// <summary>Files that a VM owns; none for one without a folder.</summary>
    internal IReadOnlyList<string> FilesOf(string vm) =>
        Directory.Exists(PathOf(vm)) ? [.. Directory.EnumerateFiles(PathOf(vm)).Order(StringComparer.Ordinal)] : [];

    /// <summary>
    /// What an earlier daemon was about to make or remove is kept for a VM that there is, and removed for one that is not.
    /// </summary>
    internal void Settle(IReadOnlySet<string> vms)
    {
        foreach (string path in Directory.EnumerateDirectories(_folder, ".*" + Pending))
        {
            string vm = Path.GetFileName(path)[1..^Pending.Length];
            if (vms.Contains(vm) && !Directory.Exists(PathOf(vm)))
            {
                Directory.Move(path, PathOf(vm));
            }
            else
            {
                Directory.Delete(path, recursive: true);
            }
        }

        HostFolder.Flush(_folder);
    }

    /// <summary>Begins the folder of a VM that is about to be created.</summary>
    /// <exception cref="ApiException">There are files of an earlier VM of this name.</exception>
    internal VmFolderChange Begin(string vm)
    {
        string path = PathOf(vm), pending = PendingOf(vm);
        if (Directory.Exists(path) && Directory.EnumerateFileSystemEntries(path).Any())
        {
            throw new ApiException(409, "name-taken", "there are disks of an earlier VM of this name",
                $"{path} holds files, and no VM {vm} that the inventory knows: move them away first");
        }

        Directory.CreateDirectory(pending, OwnerFolder);
        return new VmFolderChange(path, pending, isRemoval: false);
    }

    /// <summary>Begins to remove the folder of a VM; null when it has none.</summary>
    internal VmFolderChange? BeginRemoval(string vm)
    {
        if (!Directory.Exists(PathOf(vm)))
        {
            return null;
        }

        Directory.Move(PathOf(vm), PendingOf(vm));
        HostFolder.Flush(_folder);
        return new VmFolderChange(PathOf(vm), PendingOf(vm), isRemoval: true);
    }

    private string PendingOf(string vm) => Path.Combine(_folder, $".{vm}{Pending}");
}

/// <summary>A VM's folder on its way; disposed before it is complete, all is as it was.</summary>
/// <param name="path">Its name.</param>
/// <param name="pending">Its name meanwhile.</param>
/// <param name="isRemoval">It goes.</param>
internal sealed class VmFolderChange(string path, string pending, bool isRemoval) : IDisposable
{
    private bool _isComplete;

    /// <summary>Where it is now.</summary>
    internal string Pending => pending;

    /// <summary>The inventory says so: it gets its name, or is removed when this is disposed.</summary>
    /// <exception cref="IOException">It cannot get its name.</exception>
    internal void Complete()
    {
        if (!isRemoval)
        {
            if (Directory.Exists(path))
            {
                Directory.Delete(path); // empty
            }

            Directory.Move(pending, path);
            HostFolder.Flush(Path.GetDirectoryName(path)!);
        }

        _isComplete = true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (isRemoval && !_isComplete)
        {
            Directory.Move(pending, path);
        }
        else if (Directory.Exists(pending))
        {
            Directory.Delete(pending, recursive: true);
        }
    }
}
