using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Fs;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Machine.Kinds;
using Vmm.Spec;

namespace Vmm.Machine.Resources;

/// <summary>Shared folders from their spec.</summary>
internal static class SharedFolders
{
    /// <summary>Starts its program with this process's rights, and again whenever it ends.</summary>
    /// <exception cref="HostShareException">It cannot be started.</exception>
    internal static VhostUserLink Start(int index, ShareSpec share, Action<string>? note)
    {
        string folder = Path.GetFullPath(share.Path), id = FsKind.IdOf(index);
        Virtiofsd program = new(new VirtiofsdOptions
        {
            Folder = folder,
            ReadOnly = share.ReadOnly,
            Said = note is null ? null : line => note($"{id}: virtiofsd: {line}"),
        });
        return Open(index, share, program.Start(), _ => Task.FromResult(Restart(program)), program, note);
    }

    /// <summary>Over a socket that somebody else made.</summary>
    /// <param name="index">Number of the device.</param>
    /// <param name="share">The folder.</param>
    /// <param name="socket">The socket; owned from here on.</param>
    /// <param name="dial">Has the program started again, known by <see cref="ResourceNames.ShareAgain"/>; null: nobody does.</param>
    /// <param name="note">Takes remarks; null when nobody reads them.</param>
    /// <exception cref="HostShareException">The program does not answer as it should.</exception>
    internal static VhostUserLink Passed(
        int index, ShareSpec share, FileDescriptorHandle socket, Func<string, CancellationToken, Task<FileDescriptorHandle>>? dial,
        Action<string>? note)
    {
        string name = ResourceNames.ShareAgain(share.EffectiveTag);
        return Open(index, share, socket, dial is null ? null : cancel => dial(name, cancel), owned: null, note);
    }

    private static VhostUserLink Open(
        int index, ShareSpec share, FileDescriptorHandle socket, Func<CancellationToken, Task<FileDescriptorHandle>>? connect,
        IDisposable? owned, Action<string>? note)
    {
        try
        {
            return new VhostUserLink(socket, VirtioFs.Needs, new VhostUserLinkOptions
            {
                Name = FsKind.IdOf(index),
                Of = $"the shared folder {share.EffectiveTag} (virtiofsd)",
                Connect = connect,
                Owned = owned,
                Note = note,
            });
        }
        catch (VhostUserException cause)
        {
            throw new HostShareException(cause.Message, cause);
        }
    }

    private static FileDescriptorHandle Restart(Virtiofsd program)
    {
        try
        {
            return program.Start();
        }
        catch (Exception cause) when (cause is HostShareException or KernelException)
        {
            throw new IOException(cause.Message, cause);
        }
    }
}
