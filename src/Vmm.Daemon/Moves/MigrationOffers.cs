using Vmm.Contracts.Rest;
using Vmm.Cpu;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>Describes a VM to another host, and takes it back from there.</summary>
/// <param name="vm">The VM.</param>
/// <param name="files">Knows the files of its disks.</param>
/// <param name="storage">Where they may be.</param>
internal sealed class MigrationOffers(VmSupervisor vm, VmDiskFiles files, StorageFolders storage)
{
    private static readonly TimeSpan s_undo = TimeSpan.FromMinutes(2), s_again = TimeSpan.FromSeconds(1);

    /// <summary>Files that vmmd made for the VM, and that go with it.</summary>
    internal Func<string, IReadOnlyList<string>> Owned { private get; set; } = _ => [];

    /// <summary>Tells what KVM of this host can show to guests; it may take a while.</summary>
    internal Func<CpuDescription?> Processor { private get; set; } = () => null;

    /// <summary>Makes the offer.</summary>
    /// <param name="id">The move.</param>
    /// <param name="spec">What the VM has now.</param>
    /// <param name="wish">How it is to be moved.</param>
    /// <exception cref="ApiException">It has something that is of this host only, which is named.</exception>
    internal MigrationOffer Make(string id, VmSpec spec, MoveWish wish)
    {
        VmRecord record = vm.Store.Record;
        string? obstacle = MoveObstacle.Of(vm.Store.RequireBareSpec()) ?? MoveObstacle.Of(spec)
            ?? (spec.Disks.FirstOrDefault(disk => vm.Store.IsSeed(disk.Path)) is not null || record.Seed is { IsDeleted: false }
                ? $"{vm.Name} has a seed, which only this host has: 'vmmctl vm seed delete {vm.Name}' when it is stopped"
                : null);
        if (obstacle is not null)
        {
            throw new ApiException(409, "move-impossible", "the VM cannot go to another host", obstacle);
        }

        HashSet<string> owned = [.. Owned(vm.Name)];
        List<string> all = [];
        foreach (DiskSpec disk in spec.Disks.Where(disk => !disk.IsRemote))
        {
            foreach (string path in files.ChainOf(disk))
            {
                if (owned.Contains(path))
                {
                    throw new ApiException(409, "move-impossible", "the VM cannot go to another host",
                        $"{vm.Name}: {path} is a disk that vmmd made for it, in a folder of this host: copy it to storage that both hosts "
                            + "have (vmmctl vm copy-disk)");
                }

                all.Add(Describe(path, isTop: string.Equals(path, disk.Path, StringComparison.Ordinal)).ToText());
            }
        }

        TimeSpan longest = wish.Timeout + wish.LongestStop;
        return new MigrationOffer(id, record.Id, record.Name, record.Spec, record.Folder, VmSpecJson.Write(spec).GetRawText(), all,
            wish.Channels,
            (int)Math.Ceiling(longest.TotalSeconds),
            CpuOffer.Write(spec.Cpu ?? new CpuSpec(), Processor()));
    }

    /// <summary>
    /// Lets the VM go on in its worker. Another host that had its disks a moment ago may still be letting go of them: then again.
    /// </summary>
    internal async Task CancelAsync(IWorker worker)
    {
        using CancellationTokenSource deadline = new(s_undo);
        while (true)
        {
            try
            {
                await worker.Moves.CancelAsync(deadline.Token).ConfigureAwait(false);
                return;
            }
            catch (WorkerException) when (!worker.Ended.IsCompleted && !deadline.IsCancellationRequested)
            {
                await Task.Delay(s_again, CancellationToken.None).ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
            {
                DaemonLog.MoveNotUndone(vm.Log, vm.Name, cause.Message); // it has ended, say
                return;
            }
        }
    }

    private MigrationFile Describe(string path, bool isTop)
    {
        try
        {
            using FileDescriptorHandle file = storage.Open(path, writable: false);
            BlockFileInfo info = BlockFile.Inspect(file);
            ulong? inode = info.Kind == BlockFileKind.RegularFile ? BlockFile.Identify(file).Inode : null;
            return new MigrationFile(path, info.Size, inode, isTop);
        }
        catch (Exception cause) when (cause is StorageException or KernelException)
        {
            throw new ApiException(422, "disk-refused", "the disk cannot be read", $"{vm.Name}: {cause.Message}", inner: cause);
        }
    }
}
