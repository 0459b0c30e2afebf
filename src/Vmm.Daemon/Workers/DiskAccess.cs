using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>How disks are opened for workers.</summary>
/// <param name="Storage">Where they may be.</param>
internal sealed record DiskAccess(StorageFolders Storage)
{
    /// <summary>Nothing may be opened.</summary>
    internal static DiskAccess None { get; } = new(StorageFolders.None);

    /// <summary>The VM that a disk is opened for; empty when it is looked at only.</summary>
    internal string VmId { get; init; } = "";

    /// <summary>Starts the processes of Ceph RBD disks; null: there are none.</summary>
    internal RbdProcesses? Rbd { get; init; }

    /// <summary>Keeps the variables of firmware; null: nobody does.</summary>
    internal VariableStore? Variables { get; init; }

    /// <summary>The folder of swap files that a spec names no folder for, made when it is needed; null: there is none.</summary>
    internal string? SwapFolder { get; init; }

    /// <summary>Makes a swap file.</summary>
    /// <param name="paging">What its spec says of it.</param>
    /// <param name="note">Takes a remark.</param>
    /// <exception cref="HostMismatchException">It cannot be made there.</exception>
    /// <exception cref="StorageException">The spec names a folder that may not be used.</exception>
    /// <exception cref="IOException">The usual folder cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may it be.</exception>
    internal FileDescriptorHandle OpenSwap(PagingSpec paging, Action<string> note)
    {
        if (paging.Swap is { } wished)
        {
            using FolderFile held = Storage.HoldFolder(wished);
            return PagingFiles.OpenSwap(held.HeldPath, wished, note);
        }

        string folder = SwapFolder ?? throw new HostMismatchException("memory.swap: nobody keeps swap files here: name a folder");
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return PagingFiles.OpenSwap(folder, folder, note);
    }

    /// <summary>Keeps the seeds of VMs, which are in no storage folder; null: nobody does.</summary>
    internal SeedStore? Seeds { get; init; }

    /// <summary>Names the VM whose worker a process is, for the error that says who has a disk; null for any other process.</summary>
    internal Func<int, string?>? VmOf { get; init; }

    /// <summary>
    /// Makes of a device of a private network one on its bridge: id of the VM, the device, its place; null: there are no such networks.
    /// </summary>
    internal Func<string, NetSpec, int, (NetSpec Net, PrivateNetwork Network)>? Networks { get; init; }

    /// <summary>Takes what somebody may want to know of a VM's network: id of the VM, and a line.</summary>
    internal Action<string, string>? NetRemarked { get; init; }

    /// <summary>Takes a line that a program of a shared folder writes: id of the VM, and the line.</summary>
    internal Action<string, string>? ShareSaid { get; init; }

    /// <summary>The programs of a VM's shared folders; none is started yet.</summary>
    internal WorkerShares SharesOf(string vmId) => new(vmId, Storage, ShareSaid is { } said ? line => said(vmId, line) : null);

    /// <summary>Takes what somebody may want to know of a VM's disk: id of the VM, and a line.</summary>
    internal Action<string, string>? Remarked { get; init; }
}
