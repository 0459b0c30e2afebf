using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Nbd;
using Vmm.Storage.Rbd;

namespace Vmm.Machine.Resources;

/// <summary>Disks of Ceph clusters from their spec, for a process that starts theirs itself.</summary>
internal static class RbdDisks
{
    private static readonly Lazy<string> s_folder = new(MakeFolder);
    private static int s_count;

    /// <summary>Starts the disk's process, and connects to it.</summary>
    /// <param name="disk">The disk, which is an image of a cluster.</param>
    /// <param name="note">Takes remarks on the connection; null when nobody reads them.</param>
    /// <exception cref="BlockException">It cannot be had.</exception>
    internal static NbdBackend Open(DiskSpec disk, Action<string>? note)
    {
        RbdSpec rbd = disk.Rbd!;
        RbdHelper helper = new(new RbdHelperOptions
        {
            Program = Path.Combine(AppContext.BaseDirectory, RbdHelper.ProgramName),
            Socket = Path.Combine(s_folder.Value, $"{Interlocked.Increment(ref s_count)}"),
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
        try
        {
            return NbdDisks.Open(disk, new PassedSockets(helper.Open(), (_, cancel) => helper.ConnectAsync(cancel), disk.Path), note);
        }
        catch (IOException cause)
        {
            string why = cause.Message.StartsWith("disk ", StringComparison.Ordinal) ? cause.Message : $"disk {disk.Path}: {cause.Message}";
            throw new BlockException(BlockErrorKind.Io, why, cause) { Path = disk.Path };
        }
    }

    // Of this user alone; the sockets in it are needed as long as this process goes on.
    private static string MakeFolder()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-rbd-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) =>
        {
            try
            {
                Directory.Delete(folder, recursive: true);
            }
            catch (IOException)
            {
                // An empty folder in /tmp costs nobody anything.
            }
        };
        return folder;
    }
}
