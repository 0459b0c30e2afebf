using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// A lazy restore of a VM: its memory comes from the saved files while it runs. Its worker has the files open and goes on by itself; this
/// knows whether it does, and tells when it is over.
/// </summary>
/// <param name="vm">The VM.</param>
internal sealed class VmMemoryRestore(VmSupervisor vm) : IRunObserver
{
    private readonly Lock _turn = new();
    private IWorker? _worker; // whose restore goes on
    private IWorker? _told; // whose restore is over

    /// <summary>It goes on.</summary>
    internal bool GoesOn
    {
        get
        {
            lock (_turn)
            {
                return _worker is not null;
            }
        }
    }

    public void RunBegan(IWorker worker) => worker.OnMemoryRestored(restore => OnRestored(worker, restore));

    public void RunEnded()
    {
        lock (_turn)
        {
            _worker = _told = null;
        }
    }

    /// <summary>Refuses a VM whose memory somebody has who would not wait for it.</summary>
    /// <exception cref="ApiException">It is to be restored as a whole.</exception>
    internal void RequirePossible(VmSpec spec)
    {
        if (PagingValidation.Unpaged(spec).FirstOrDefault() is (string path, string reason))
        {
            throw new ApiException(422, "restore-not-lazy", "the VM cannot be restored lazily",
                $"{vm.Name}: {path}: {reason}: restore it without 'lazy'", [new FieldProblem("lazy", $"{path}: {reason}", 0)]);
        }
    }

    /// <summary>A worker was built that restores lazily; its guest does not run yet.</summary>
    internal void Begin(IWorker worker)
    {
        lock (_turn)
        {
            _worker = ReferenceEquals(_told, worker) ? null : worker;
        }
    }

    /// <summary>Asks a worker of an earlier daemon.</summary>
    internal async Task LearnAsync(IWorker worker, CancellationToken cancellation)
    {
        try
        {
            if ((await worker.GetStatsAsync(cancellation).ConfigureAwait(false)).Restore is not null && vm.IsCurrent(worker))
            {
                Begin(worker);
            }
        }
        catch (WorkerException cause)
        {
            DaemonLog.RestoreNotKnown(vm.Log, vm.Name, cause.Message);
        }
    }

    /// <summary>A worker that was taken over may say so without end: it is heard once.</summary>
    private void OnRestored(IWorker worker, MemoryRestoreInfo restore)
    {
        lock (_turn)
        {
            if (!vm.IsCurrent(worker) || ReferenceEquals(_told, worker))
            {
                return;
            }

            (_worker, _told) = (null, worker);
        }

        string what = FormattableString.Invariant($"all {restore.TotalBytes >> 20} MiB are there after {restore.Milliseconds} ms, ")
            + FormattableString.Invariant($"{restore.AwaitedBytes >> 20} MiB of them were waited for; the saved files are closed");
        vm.Events.Publish("memory-restored", vm.Name, message: what);
        DaemonLog.MemoryRestored(vm.Log, vm.Name, what);
    }
}
