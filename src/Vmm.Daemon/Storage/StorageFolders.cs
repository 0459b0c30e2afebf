using System.Globalization;
using Vmm.Daemon.Access;
using Vmm.Interop;
using Vmm.Spec;
using Syscall = Mono.Unix.Native.Syscall;

namespace Vmm.Daemon.Storage;

/// <summary>
/// Where an administrator allows disks, kernels and initrds to lie. vmmd opens them with its own rights for whoever may start VMs: without
/// this border an operator would have every file of the host. A file is found beneath a folder without leaving it by <c>..</c> or a link,
/// looked at, and what was looked at is opened.
/// </summary>
/// <param name="folders">Folders of files.</param>
/// <param name="deviceFolders">Folders of block devices, such as /dev/mapper; links in them are followed, since what makes device nodes
/// makes those.</param>
/// <param name="servers">NBD servers that disks may be on: host:port, or the path of a unix socket; null is none.</param>
/// <param name="pools">Pools of Ceph clusters that disks may be in, as <see cref="RbdUri.PoolOf"/> writes them; null is none.</param>
public sealed class StorageFolders(
    IReadOnlyList<string> folders, IReadOnlyList<string> deviceFolders, IReadOnlyList<string>? servers = null,
    IReadOnlyList<string>? pools = null)
{
    private static readonly uint? s_packageUser = Syscall.getpwnam("vmm")?.pw_uid;

    /// <summary>Nothing is allowed.</summary>
    internal static StorageFolders None { get; } = new([], []);

    /// <summary>Folders of files that no VM writes: the daemon's images, the files of replicas.</summary>
    internal IReadOnlyList<string> ReadOnlyFolders { get; init; } = [];

    /// <summary>Opens a file or device of a spec.</summary>
    /// <param name="path">The whole path.</param>
    /// <param name="writable">Read and write.</param>
    /// <exception cref="StorageException">It is not there, not allowed, or cannot be opened.</exception>
    internal FileDescriptorHandle Open(string path, bool writable)
    {
        using FolderFile file = Find(path);
        if (writable && (IsReadOnly(Path.GetFullPath(path, "/")) || IsKept(file)))
        {
            throw new StorageException(
                path, "is an image or a replica of this host, which no VM writes: have a disk made over it (image: NAME in place of path)");
        }

        try
        {
            if (file.Facts.IsBlockDevice && !writable)
            {
                // refused when the host has it mounted; several readers may share it otherwise
                file.Open(writable: false, exclusive: true).Dispose();
            }

            return file.Open(writable, exclusive: writable && file.Facts.IsBlockDevice);
        }
        catch (KernelException e)
        {
            throw new StorageException(path, e.Errno switch
            {
                Errno.EBUSY => "is a block device that the host has mounted or uses otherwise: unmount it first",
                Errno.EROFS => "is on a read-only file system",
                Errno.EACCES => writable ? "may not be written by this user" : "may not be read by this user",
                _ => e.Message,
            }, e);
        }
    }

    /// <summary>Why a file cannot be used; null when it could be opened now, as far as can be seen.</summary>
    internal string? Problem(string path)
    {
        try
        {
            Find(path).Dispose();
            return null;
        }
        catch (StorageException e)
        {
            return e.Message;
        }
    }

    /// <summary>
    /// Why a VM may not have a disk of this server; null when it may. vmmd connects with its own rights, and to nothing that an
    /// administrator did not name.
    /// </summary>
    internal string? Problem(NbdSpec nbd)
    {
        if (nbd.Tls is not null)
        {
            return "TLS is not possible for VMs of vmmd: the TLS library reads its files for each connection, in the worker, which opens "
                + "none. Use vmmctl run, or a tunnel on this host (stunnel, ssh -L) and its unix socket";
        }

        string address = nbd.Socket ?? string.Create(CultureInfo.InvariantCulture, $"{nbd.Host}:{nbd.Port}");
        return servers?.Contains(address, StringComparer.Ordinal) == true ? null
            : $"{address} is no NBD server that VMs of this host may use: an administrator has to add it to \"nbdServers\" in vmmd.yaml";
    }

    /// <summary>
    /// Why a VM may not have a disk of this pool; null when it may. vmmd opens conf and keyring with its own rights, and none that an
    /// administrator did not name.
    /// </summary>
    internal string? Problem(RbdSpec rbd)
    {
        string pool = RbdUri.PoolOf(rbd);
        return pools?.Contains(pool, StringComparer.Ordinal) == true ? null
            : $"{pool} is no pool that VMs of this host may use: an administrator has to add it to \"rbdPools\" in vmmd.yaml";
    }

    /// <summary>Holds a folder in which something is to be made or read.</summary>
    /// <param name="path">The whole path of a storage folder, or of a folder in one.</param>
    /// <exception cref="StorageException">It is not there, not allowed, or somebody else's.</exception>
    internal FolderFile HoldFolder(string path)
    {
        string full = Path.GetFullPath(path, "/");
        if (IsReadOnly(full))
        {
            throw new StorageException(path, "is a folder of images or replicas of this host, in which nothing else is made");
        }

        string at = folders.Contains(full, StringComparer.Ordinal) ? full : FolderOf(folders, full)
            ?? throw new StorageException(
                path, $"is in no storage folder of this host ({string.Join(", ", folders)}): name a folder in one of them");
        FolderFile folder = Find(path, at, Path.GetRelativePath(at, full), confined: true);
        FileFacts facts = folder.Facts;
        if (facts.IsDirectory && (facts.UserId == 0 || facts.UserId == HostAccounts.OwnUser || facts.UserId == s_packageUser))
        {
            return folder;
        }

        folder.Dispose();
        throw new StorageException(path, facts.IsDirectory
            ? $"belongs to uid {facts.UserId}: it has to be root's, vmmd's or that of the user vmm"
            : "is no folder");
    }

    /// <summary>Why nothing can be made in a folder; null when it could be now.</summary>
    internal string? FolderProblem(string path)
    {
        try
        {
            HoldFolder(path).Dispose();
            return null;
        }
        catch (StorageException e)
        {
            return e.Message;
        }
    }

    /// <summary>Holds a folder that a guest is to see, below a storage folder; whose it is does not matter, since what is held is
    /// shared.</summary>
    /// <param name="path">The whole path.</param>
    /// <param name="writable">The guest may change what is in it.</param>
    /// <exception cref="StorageException">It is not there, not allowed, or no folder.</exception>
    internal FolderFile HoldShare(string path, bool writable)
    {
        string full = Path.GetFullPath(path, "/");
        bool isKept = IsReadOnly(full);
        if (isKept && writable)
        {
            throw new StorageException(
                path, "is a folder of images or replicas of this host, which no guest writes: share it read-only (readOnly)");
        }

        string at = FolderOf(folders, full) ?? (isKept ? KeptFolderOf(full) : null) ?? throw new StorageException(
            path, $"is in no storage folder of this host ({string.Join(", ", folders)}): name a folder below one of them, or let an "
                + "administrator add the one above it to \"storage\" in vmmd.yaml");
        FolderFile folder = Find(path, at, Path.GetRelativePath(at, full), confined: true);
        using FolderFile top = Find(at, at, ".", confined: true);
        bool isTop = (folder.Facts.Device, folder.Facts.Inode) == (top.Facts.Device, top.Facts.Inode); // by a link
        if (folder.Facts.IsDirectory && !isTop)
        {
            return folder;
        }

        folder.Dispose();
        throw new StorageException(path, isTop ? $"leads to {at} itself: name a folder below it" : "is no folder");
    }

    /// <summary>Holds the socket of a program that is to have a guest's memory (vhost-user).</summary>
    /// <param name="path">The whole path.</param>
    /// <exception cref="StorageException">It is not there, not allowed, no socket, or somebody else's.</exception>
    internal FolderFile HoldSocket(string path)
    {
        string full = Path.GetFullPath(path, "/");
        string at = FolderOf(folders, full) ?? throw new StorageException(path, NoSocketFolder);
        FolderFile socket = Find(path, at, Path.GetRelativePath(at, full), confined: true);
        FileFacts facts = socket.Facts;
        if (facts.IsSocket && (facts.UserId == 0 || facts.UserId == HostAccounts.OwnUser || facts.UserId == s_packageUser))
        {
            return socket;
        }

        socket.Dispose();
        throw new StorageException(path, facts.IsSocket
            ? $"belongs to uid {facts.UserId}, whose program would have the guest's memory: it has to be root's, vmmd's or that of "
                + "the user vmm"
            : "is no socket");
    }

    /// <summary>
    /// Why a program may not listen there for a device; null when it may. Whether it does is seen when the VM starts.
    /// </summary>
    internal string? SocketProblem(string path) =>
        FolderOf(folders, Path.GetFullPath(path, "/")) is not null ? null : $"{path} {NoSocketFolder}";

    private string NoSocketFolder =>
        $"is in no storage folder of this host ({string.Join(", ", folders)}): let the program listen in one of them, or let an "
            + "administrator add its folder to \"storage\" in vmmd.yaml";

    /// <summary>Why a folder cannot be shared; null when it could be now.</summary>
    internal string? Problem(ShareSpec share)
    {
        try
        {
            HoldShare(share.Path, !share.ReadOnly).Dispose();
            return null;
        }
        catch (StorageException e)
        {
            return e.Message;
        }
    }

    private FolderFile Find(string path)
    {
        string full = Path.GetFullPath(path, "/");
        bool mayBeDevice = FolderOf(deviceFolders, full) is not null;
        string? folder = FolderOf(folders, full) ?? KeptFolderOf(full);
        if ((folder ?? FolderOf(deviceFolders, full)) is not { } at)
        {
            throw new StorageException(path, folders.Count == 0
                ? "cannot be used: no storage folder is set; name one with \"storage\" in vmmd.yaml or --storage"
                : $"is not in a storage folder of this host ({string.Join(", ", folders.Concat(deviceFolders))}): move it into one, or let "
                    + "an administrator add its folder to \"storage\" (block devices: \"blockDevices\") in vmmd.yaml");
        }

        FolderFile file = Find(path, at, Path.GetRelativePath(at, full), confined: folder is not null);
        try
        {
            Check(path, file.Facts, at, mayBeDevice, onlyDevices: folder is null);
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static FolderFile Find(string path, string folder, string relative, bool confined)
    {
        try
        {
            return FolderFile.Find(folder, relative, confined);
        }
        catch (KernelException e)
        {
            throw new StorageException(path, e.Errno switch
            {
                Errno.ENOENT or Errno.ENOTDIR => "does not exist",
                Errno.EXDEV => $"leads out of the storage folder {folder} by a link: name the file itself, and have its folder allowed",
                Errno.ELOOP => $"goes through a link of /proc, or too many links, in the storage folder {folder}: name the file itself",
                Errno.EACCES => "permission denied",
                Errno.ENOSYS => "cannot be opened safely: this kernel has no openat2 (Linux 5.6), or the service hides it "
                    + "(RestrictSUIDSGID= of systemd does)",
                _ => e.Message,
            }, e);
        }
    }

    private static void Check(string path, in FileFacts facts, string folder, bool mayBeDevice, bool onlyDevices)
    {
        if (facts.IsBlockDevice)
        {
            if (!mayBeDevice)
            {
                throw new StorageException(
                    path, "is a block device in no folder of \"blockDevices\": an administrator has to add that to vmmd.yaml");
            }

            return;
        }

        if (!facts.IsRegular)
        {
            throw new StorageException(path, facts.IsDirectory ? "is a directory" : "is neither a file nor a block device");
        }

        if (onlyDevices)
        {
            throw new StorageException(path, $"is a file, and {folder} is a folder of block devices only");
        }

        if (facts.UserId != 0 && facts.UserId != HostAccounts.OwnUser && facts.UserId != s_packageUser)
        {
            throw new StorageException(path, $"belongs to uid {facts.UserId}, who could exchange it under a VM that runs: files in "
                + $"{folder} have to be root's, vmmd's or those of the user vmm ('chown root {path}')");
        }

        if (facts.Links > 1)
        {
            throw new StorageException(
                path, $"has {facts.Links} names (hard links), of which others may lie outside {folder}: copy it ('cp --reflink=auto')");
        }
    }

    private bool IsReadOnly(string full) => KeptFolderOf(full) is not null;

    // The read-only folder that a path is, or is in.
    private string? KeptFolderOf(string full) =>
        ReadOnlyFolders.FirstOrDefault(kept => string.Equals(full, kept, StringComparison.Ordinal)) ?? FolderOf(ReadOnlyFolders, full);

    // Whatever links led there: what was found says where it is.
    private bool IsKept(FolderFile file) => ReadOnlyFolders.Any(kept =>
    {
        if (!Directory.Exists(kept))
        {
            return false;
        }

        using FolderFile library = FolderFile.Find(kept, ".", confined: false);
        return new FileInfo(file.HeldPath).LinkTarget is not { } at || new FileInfo(library.HeldPath).LinkTarget is not { } real
            || at.StartsWith(real + "/", StringComparison.Ordinal);
    });

    /// <summary>The innermost folder that has the path in it.</summary>
    private static string? FolderOf(IReadOnlyList<string> all, string path) =>
        all.Where(f => path.Length > f.Length && path.StartsWith(f, StringComparison.Ordinal) && (f.EndsWith('/') || path[f.Length] == '/'))
            .MaxBy(f => f.Length);
}
