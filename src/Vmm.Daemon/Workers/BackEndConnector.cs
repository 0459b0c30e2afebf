using System.Runtime.InteropServices;
using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Storage.Nbd;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Connects to a program that serves a device over vhost-user, with the rights of vmmd. What was found below a storage folder is what is
/// connected to, wherever its name leads meanwhile.
/// </summary>
/// <param name="storage">Where sockets may be.</param>
/// <param name="socket">The whole path.</param>
internal sealed class BackEndConnector(StorageFolders storage, string socket) : INbdConnector
{
    /// <summary>For a VM that starts.</summary>
    /// <exception cref="WorkerException">It is not there, not allowed, or nobody listens.</exception>
    internal FileDescriptorHandle Connect()
    {
        try
        {
            return Dial();
        }
        catch (IOException cause)
        {
            throw new WorkerException(ControlCodes.BackEndOpenFailed, cause.Message, cause);
        }
    }

    /// <inheritdoc/>
    public Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel) => Task.FromResult(Dial());

    private FileDescriptorHandle Dial()
    {
        try
        {
            using FolderFile held = storage.HoldSocket(socket);
            return UnixStream.Connect(held.HeldPath, out int why)
                ?? throw new IOException($"connect to {socket}: {Marshal.GetPInvokeErrorMessage(why)}: is the program that serves it up?");
        }
        catch (StorageException cause)
        {
            throw new IOException(cause.Message, cause);
        }
    }
}
