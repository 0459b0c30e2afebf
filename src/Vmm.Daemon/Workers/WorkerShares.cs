using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage.Nbd;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The virtiofsd processes of one VM's worker, one for each shared folder. They outlive vmmd as the worker does, and end when it closes
/// their sockets; when the worker is gone, what is left of them is killed, also what an earlier vmmd started.
/// </summary>
/// <param name="vmId">The VM.</param>
/// <param name="storage">Where folders may be.</param>
/// <param name="said">Takes a line that one of them writes; null: nobody reads them.</param>
internal sealed class WorkerShares(string vmId, StorageFolders storage, Action<string>? said) : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Virtiofsd> _programs = new(StringComparer.Ordinal); // by tag
    private bool _disposed;

    /// <summary>Starts the one of a folder, again if need be; one that there was is killed.</summary>
    /// <exception cref="WorkerException">It cannot be started.</exception>
    internal FileDescriptorHandle Start(ShareSpec share)
    {
        try
        {
            return ProgramOf(share).Start();
        }
        catch (Exception cause) when (cause is HostShareException or StorageException or KernelException)
        {
            throw new WorkerException(ControlCodes.ShareOpenFailed, cause.Message, cause);
        }
    }

    /// <summary>Who starts the one of a folder again when its worker asks.</summary>
    internal INbdConnector ConnectorOf(ShareSpec share)
    {
        lock (_lock)
        {
            if (!_disposed)
            {
                _ = ProgramOf(share); // from here on it is killed with its worker
            }
        }

        return new Again(this, share);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            foreach (Virtiofsd program in _programs.Values)
            {
                program.Dispose();
            }

            _programs.Clear();
        }
    }

    private Virtiofsd ProgramOf(ShareSpec share)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (!_programs.TryGetValue(share.EffectiveTag, out Virtiofsd? program))
            {
                program = new Virtiofsd(new VirtiofsdOptions
                {
                    Folder = share.Path,
                    ReadOnly = share.ReadOnly,
                    Mark = $"{vmId} {share.EffectiveTag}",
                    Hold = () => storage.HoldShare(share.Path, !share.ReadOnly),
                    Said = said is null ? null : line => said($"virtiofsd of {share.EffectiveTag}: {line}"),
                });
                _programs.Add(share.EffectiveTag, program);
            }

            return program;
        }
    }

    private sealed class Again(WorkerShares shares, ShareSpec share) : INbdConnector
    {
        public Task<FileDescriptorHandle> ConnectAsync(CancellationToken cancel) => Task.Run(() =>
        {
            try
            {
                return shares.Start(share);
            }
            catch (Exception cause) when (cause is WorkerException or ObjectDisposedException)
            {
                throw new IOException(cause.Message, cause);
            }
        }, cancel);
    }
}
