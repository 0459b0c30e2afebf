using System.Security.Cryptography;
using System.Text;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage.Rbd;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The processes that have disks of Ceph clusters, one for each disk of each VM. They outlive vmmd as workers do: a new one finds them by
/// their sockets. They end by themselves when their VM does.
/// </summary>
/// <param name="folder">Folder of their sockets. Made with mode 0700.</param>
/// <param name="user">The user that they become; null: they stay the daemon's.</param>
internal sealed class RbdProcesses(string folder, uint? user)
{
    /// <summary>The program.</summary>
    internal string Program { get; init; } = Path.Combine(AppContext.BaseDirectory, RbdHelper.ProgramName);

    /// <summary>Takes what they write to their standard error: id of the VM, and a line. Null: it goes to the daemon's own.</summary>
    private Action<string, string>? Said { get; init; }

    /// <summary>The same, whose standard error somebody reads.</summary>
    internal RbdProcesses Telling(Action<string, string> said) => new(folder, user) { Program = Program, Said = said };

    /// <summary>Who starts the process of a disk, and connects to it.</summary>
    internal RbdHelper HelperOf(string vmId, DiskSpec disk)
    {
        RbdSpec rbd = disk.Rbd!;
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        byte[] known = SHA256.HashData(Encoding.UTF8.GetBytes($"{rbd.Uri}\n{disk.ReadOnly}\n{disk.Cache}"));
        return new RbdHelper(new RbdHelperOptions
        {
            Program = Program,
            Socket = Path.Combine(folder, $"{vmId}-{Convert.ToHexStringLower(known.AsSpan(0, 6))}"),
            User = user,
            Errors = Said is { } said ? () => OpenErrors(vmId, said) : null,
            Disk = new RbdOptions
            {
                Name = disk.Path,
                Pool = rbd.Pool,
                Namespace = rbd.Namespace,
                Image = rbd.Image,
                User = rbd.User,
                Conf = rbd.Conf,
                Keyring = rbd.KeyringFile,
                ReadOnly = disk.ReadOnly,
                WriteBack = disk.Cache == DiskCache.Buffered,
            },
        });
    }

    // Read, within bounds, until the process is gone.
    private static FileDescriptorHandle OpenErrors(string vmId, Action<string, string> said)
    {
        (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
        WorkerErrors errors = new(own, line => said(vmId, line));
        _ = errors.Finished.ContinueWith(_ => errors.Dispose(), TaskScheduler.Default);
        return theirs;
    }
}
