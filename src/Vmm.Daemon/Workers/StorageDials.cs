using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage.Nbd;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Connects the disks of a VM to their servers again, and shared folders and user-mode networks to their programs: to those that its spec
/// names, whatever its worker asks for. One wish at a time and a pause between them: a worker that was taken over may ask without end, and
/// its disks wait.
/// </summary>
/// <param name="call">Sends the answer.</param>
/// <param name="rbd">Starts the processes of Ceph RBD disks; null: there are none.</param>
/// <param name="nets">Starts passt; null: there is none.</param>
internal sealed class StorageDials(
    Func<StorageDialed, FileDescriptorHandle?, Task> call, RbdProcesses? rbd = null, UserNetStarts? nets = null)
{
    /// <summary>How long a server may take.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(50);
    private const int Most = 64; // a disk asks for one at a time

    private readonly Lock _lock = new();
    private readonly Dictionary<string, INbdConnector> _servers = new(StringComparer.Ordinal);
    private Task _last = Task.CompletedTask; // the wish before; under the lock
    private int _dials;

    /// <summary>Who connects to a server, with the rights of vmmd: no symbolic link leads it elsewhere.</summary>
    internal static INbdConnector DialerOf(NbdSpec nbd) =>
        nbd.Socket is { } socket ? NbdDialer.Unix(socket, followsLinks: false) : NbdDialer.Tcp(nbd.Host!, nbd.Port);

    /// <summary>From now on these disks may be connected.</summary>
    /// <param name="vmId">Whose they are.</param>
    /// <param name="disks">The disks.</param>
    internal void Serve(string vmId, IEnumerable<DiskSpec> disks)
    {
        lock (_lock)
        {
            foreach (DiskSpec disk in disks)
            {
                if ((disk.Nbd is { } nbd ? DialerOf(nbd) : disk.Rbd is null ? null : rbd?.HelperOf(vmId, disk)) is { } server)
                {
                    _servers[disk.Path] = server;
                }
            }
        }
    }

    /// <summary>The same with programs that serve devices.</summary>
    internal void Serve(string vmId, IEnumerable<DiskSpec> disks, StorageFolders storage, IEnumerable<DeviceSpec> devices)
    {
        Serve(vmId, disks);
        lock (_lock)
        {
            foreach (string socket in devices.Select(device => device.BackEnd).OfType<string>())
            {
                _servers[ResourceNames.BackEndAgain(socket)] = new BackEndConnector(storage, socket);
            }
        }
    }

    /// <summary>From now on the programs of these folders may be started again.</summary>
    internal void Serve(WorkerShares programs, IEnumerable<ShareSpec> shares)
    {
        lock (_lock)
        {
            foreach (ShareSpec share in shares)
            {
                _servers[ResourceNames.ShareAgain(share.EffectiveTag)] = programs.ConnectorOf(share);
            }
        }
    }

    /// <summary>Begins to connect; what is beyond the limit is dropped, and the worker tries again by its own deadline.</summary>
    internal void Begin(StorageDial wish)
    {
        if (Interlocked.Increment(ref _dials) <= Most)
        {
            lock (_lock)
            {
                Task before = _last;
                _last = Task.Run(() => DialAsync(wish, before));
            }
        }
        else
        {
            Interlocked.Decrement(ref _dials);
        }
    }

    private async Task DialAsync(StorageDial wish, Task before)
    {
        await before.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        try
        {
            if (nets is not null && wish.Disk is NetSpec.UserSource)
            {
                (FileDescriptorHandle? made, string? why) = nets.Start();
                await call(new StorageDialed(wish.Dial, why), made).ConfigureAwait(false);
                return;
            }

            INbdConnector? server;
            lock (_lock)
            {
                server = _servers.GetValueOrDefault(wish.Disk);
            }

            (FileDescriptorHandle? socket, string? problem) = server is null ? (null, "this VM has no such disk, shared folder or device")
                : await ConnectAsync(server).ConfigureAwait(false);
            using (socket)
            {
                await call(new StorageDialed(wish.Dial, problem), socket).ConfigureAwait(false);
            }

            await Task.Delay(s_pause).ConfigureAwait(false);
        }
        catch (WorkerException)
        {
            // The worker is gone, or does not speak.
        }
        finally
        {
            Interlocked.Decrement(ref _dials);
        }
    }

    private static async Task<(FileDescriptorHandle?, string?)> ConnectAsync(INbdConnector server)
    {
        using CancellationTokenSource patience = new(Patience);
        try
        {
            return (await server.ConnectAsync(patience.Token).ConfigureAwait(false), null);
        }
        catch (Exception cause) when (cause is IOException or OperationCanceledException)
        {
            return (null, cause.Message);
        }
    }
}
