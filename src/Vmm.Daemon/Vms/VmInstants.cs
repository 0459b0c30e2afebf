using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The disks of a running VM as they were at one instant, to be read: the VM goes on in overlays meanwhile, which are committed then.
/// Snapshot and commit see to it that the VM has right disks whatever dies. An overlay that is left (the VM or the daemon ended meanwhile)
/// is merged by the next one who reads them while the VM runs. One reads at a time: who commits an overlay changes what is below it.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="snapshots">Takes the instant.</param>
/// <param name="commits">Merges overlays.</param>
/// <param name="storage">Where disks may be.</param>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one.
#pragma warning disable CA1001
internal sealed class VmInstants(VmSupervisor vm, VmDevices devices, VmSnapshots snapshots, VmDiskCommits commits, StorageFolders storage)
#pragma warning restore CA1001
{
    private readonly SemaphoreSlim _free = new(1, 1);

    /// <summary>Waits until nobody else reads the disks; what is returned ends that.</summary>
    internal async Task<IDisposable> HoldAsync(CancellationToken cancellation)
    {
        await _free.WaitAsync(cancellation).ConfigureAwait(false);
        return new Held(_free);
    }

    /// <summary>Takes the disks now; null: somebody else reads them.</summary>
    internal IDisposable? TryHold() => _free.Wait(TimeSpan.Zero) ? new Held(_free) : null;

    /// <summary>Reads disks of a VM that runs. Who calls this holds them.</summary>
    /// <param name="wish">Which disks, and how.</param>
    /// <param name="read">Reads them; hears what stays as it was, and whether the guest was frozen.</param>
    /// <param name="isCut">It is one of many cuts for a replica: change logs are cut at the instant, and nobody hears of each.</param>
    /// <param name="cancellation">Gives up; overlays are merged all the same.</param>
    /// <returns>What was read, and the overlays that stay, each with the reason.</returns>
    /// <exception cref="ApiException">There is no instant, or reading failed.</exception>
    internal async Task<(T Made, IReadOnlyList<string> Left)> ReadAsync<T>(
        SnapshotWish wish, Func<IReadOnlyList<PlannedSnapshot>, GuestQuiesce?, Task<T>> read, bool isCut, CancellationToken cancellation)
    {
        T made;
        List<string> left = [];
        try
        {
            (List<PlannedSnapshot> taken, GuestQuiesce? quiesced) = await snapshots.TakeAsync(wish, isCut, cancellation, isQuiet: isCut)
                .ConfigureAwait(false);
            made = await read(taken, quiesced).ConfigureAwait(false);
        }
        finally
        {
            // Also when it failed: the snapshot may have been taken all the same.
            foreach (string name in wish.Disks ?? [])
            {
                if (await MergeAsync(name, isCut).ConfigureAwait(false) is { } stays)
                {
                    left.Add(stays);
                    DaemonLog.BackupOverlayStays(vm.Log, vm.Name, stays);
                }
            }
        }

        return (made, left);
    }

    // One whose owner gave the disk another top meanwhile is an image of its chain as others are.
    /// <returns>That the overlay of a disk stays, and why; null: it is merged, or there is none.</returns>
    private async Task<string?> MergeAsync(string name, bool isQuiet)
    {
        string overlay = "its overlay";
        try
        {
            DiskSpec now = devices.DiskOf(name, running: vm.RequireWorkerForDevices() is not null);
            if (BackupPlan.IsOverlay(now.Path))
            {
                overlay = now.Path;
                DiskCommitWish wish = new(BackupPlan.BaseOf(now.Path, storage), Delete: true);
                await commits.CommitAsync(name, wish, _ => { }, CancellationToken.None, isQuiet).ConfigureAwait(false);
            }

            return null;
        }
        catch (ApiException e)
        {
            return Stays(e.Problem.Detail);
        }
        catch (Exception e) when (e is BlockException or StorageException or KernelException)
        {
            return Stays(e.Message);
        }

        string Stays(string why) => $"{name} goes on in {overlay} until the next backup or cut: {why}";
    }

    private sealed class Held(SemaphoreSlim free) : IDisposable
    {
        private SemaphoreSlim? _free = free;

        public void Dispose() => Interlocked.Exchange(ref _free, null)?.Release();
    }
}
