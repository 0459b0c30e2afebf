using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>
/// Makes VMs of points, and removes them. The disks are overlays in the VM's own folder, which comes and goes with the VM; files of points
/// are only read.
/// </summary>
/// <param name="vms">The VMs of this host.</param>
/// <param name="storage">Where files of specs may be.</param>
/// <param name="variables">Keeps the variables of firmware.</param>
internal sealed class RecoveryVms(VmManager vms, StorageFolders storage, VariableStore variables)
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Plans a VM; nothing is made yet.</summary>
    /// <param name="replica">Whose point.</param>
    /// <param name="point">The point.</param>
    /// <param name="name">The name of the VM.</param>
    /// <param name="isTest">It is a test.</param>
    /// <param name="wish">What the operator asked for.</param>
    /// <exception cref="ApiException">It cannot run here; what is in the way is named.</exception>
    internal RecoverySpec Plan(Replica replica, ArrangedPoint point, string name, bool isTest, FailoverWish wish)
    {
        if (IsNameTaken(name))
        {
            throw new ApiException(409, "name-taken", "the name is taken",
                $"{name}: there is a VM of this name here: delete it, or give the new one another name (--as)");
        }

        string folder = vms.ImageDisks!.Folders.PathOf(name);
        Dictionary<string, string> disks = point.Point.Disks.ToDictionary(
            disk => disk.Name, disk => Path.Combine(folder, disk.Name + ".qcow2"), StringComparer.Ordinal);
        return RecoverySpec.Make(
            point.Point.Spec, new RecoveryAim(replica.Name, replica.Record.Vm, name, isTest, wish, disks), storage);
    }

    /// <summary>Makes the VM; it is in the inventory when this returns, or nothing of it is there.</summary>
    /// <param name="replica">Whose point.</param>
    /// <param name="point">The point.</param>
    /// <param name="plan">What the VM is to be.</param>
    /// <param name="id">Its id.</param>
    /// <param name="cancellation">Gives up, before it begins.</param>
    /// <exception cref="ApiException">It cannot be made.</exception>
    internal async Task MakeAsync(Replica replica, ArrangedPoint point, RecoverySpec plan, string id, CancellationToken cancellation)
    {
        using IDisposable held = vms.Disks.Name(plan.Spec.Disks);
        try
        {
            if (point.Point.Variables is { } text)
            {
                variables.Put(id, Convert.FromBase64String(text));
            }

            VmRecord record = new(id, plan.Spec.Name, plan.Text, "", 1, WantedOn: false, LastExit: null);
            _ = await vms.AddAsync(record, plan.Spec, () => MakeDisks(replica, point, plan.Spec.Name), cancellation).ConfigureAwait(false);
        }
        catch (Exception cause)
        {
            if (!vms.All.Any(vm => string.Equals(vm.Record.Id, id, StringComparison.Ordinal)))
            {
                variables.Delete(id);
            }

            throw cause is IOException or UnauthorizedAccessException
                ? new ApiException(
                    507, "disk-create-failed", "the VM could not be made", $"{plan.Spec.Name}: {cause.Message}", inner: cause)
                : cause;
        }

        vms.Events.Publish("created", plan.Spec.Name);
    }

    /// <summary>Starts the VM.</summary>
    /// <exception cref="ApiException">It does not start; it is there all the same, which the message says.</exception>
    internal async Task StartAsync(string name, CancellationToken cancellation)
    {
        try
        {
            _ = await vms.Get(name).StartAsync(null, cancellation).ConfigureAwait(false);
        }
        catch (ApiException cause)
        {
            throw new ApiException(cause.Problem.Status, cause.Problem.Code, cause.Problem.Title,
                $"{name} was made, and does not start: {cause.Problem.Detail}", cause.Problem.Errors, cause);
        }
    }

    /// <summary>Whether there is a VM of this name.</summary>
    internal bool IsNameTaken(string name) => vms.All.Any(vm => string.Equals(vm.Record.Name, name, StringComparison.Ordinal));

    /// <summary>Whether the VM with an id is there.</summary>
    internal bool IsThere(string id) => Find(id) is not null;

    /// <summary>Pulls the plug of a VM and removes it with its disks; done when it is not there.</summary>
    /// <exception cref="ApiException">It does not stop, or its disks are in use.</exception>
    internal async Task RemoveAsync(string id, CancellationToken cancellation)
    {
        if (Find(id) is not { } vm)
        {
            return;
        }

        if (vm.IsAlive)
        {
            _ = await vm.StopAsync(null, cancellation).ConfigureAwait(false);
        }

        await vms.RemoveAsync(vm.Record.Name, null, cancellation).ConfigureAwait(false);
    }

    private ManagedVm? Find(string id) => vms.All.FirstOrDefault(vm => string.Equals(vm.Record.Id, id, StringComparison.Ordinal));

    private VmFolderChange MakeDisks(Replica replica, ArrangedPoint point, string name)
    {
        VmFolderChange folder = vms.ImageDisks!.Folders.Begin(name);
        try
        {
            foreach (SealedDisk disk in point.Point.Disks)
            {
                string path = Path.Combine(folder.Pending, disk.Name + ".qcow2");
                string image = replica.Points.ImageOf(point, disk.Name);
                Qcow2Creator.Create(path, Qcow2CreateOptions.Over(image, ImageFormat.Qcow2, disk.Bytes));
                File.SetUnixFileMode(path, OwnerFile);
            }

            HostFolder.Flush(folder.Pending);
            return folder;
        }
        catch (Exception cause)
        {
            folder.Dispose();
            throw cause is IOException or UnauthorizedAccessException or BlockException
                ? new ApiException(507, "disk-create-failed", "the disk could not be made", $"{name}: {cause.Message}", inner: cause)
                : cause;
        }
    }
}
