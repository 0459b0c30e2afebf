using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>
/// What goes on with a disk of a running VM: it begins in its turn, is watched until everything is there, and takes its last step in its
/// turn. When nothing comes of it the worker gives it up, and the VM has the disk that it had.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="device">Name of the disk.</param>
internal abstract class VmDiskJob(VmSupervisor vm, string device)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(250), s_undo = TimeSpan.FromMinutes(2);

    /// <summary>Which it is of what takes turns: its beginning, and its last step.</summary>
    protected abstract (VmOperation Begin, VmOperation Finish) Turns { get; }

    /// <summary>What happens to the disk: <c>copied</c>, <c>streamed</c>, …</summary>
    protected abstract string Verb { get; }

    /// <summary>What the VM goes on with when nothing comes of it.</summary>
    protected abstract string Otherwise { get; }

    /// <summary>The VM.</summary>
    protected VmSupervisor Vm => vm;

    /// <summary>Name of the disk.</summary>
    protected string Device => device;

    /// <summary>Carries it out. When this throws, the VM goes on with the disk that it had.</summary>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It cannot be done, or failed.</exception>
    internal async Task RunAsync(Action<double> progress, CancellationToken cancellation)
    {
        IWorker? worker = null;
        bool isOver = false;
        try
        {
            await vm.Operations.RunAsync(
                Turns.Begin,
                vm.Name,
                async () =>
                {
                    worker = await PrepareAsync(cancellation).ConfigureAwait(false);
                    await BeginAsync(worker, cancellation).ConfigureAwait(false);
                },
                cancellation).ConfigureAwait(false);
            await WatchAsync(worker!, progress, cancellation).ConfigureAwait(false);
            await vm.Operations.RunAsync(
                Turns.Finish,
                vm.Name,
                async () =>
                {
                    if (!vm.IsCurrent(worker!))
                    {
                        throw vm.WrongState($"ended while its disk was {Verb}");
                    }

                    await FinishAsync(worker!, cancellation).ConfigureAwait(false);
                    isOver = true;
                },
                cancellation).ConfigureAwait(false);
        }
        catch (WorkerException refused)
        {
            throw ToApi(refused);
        }
        finally
        {
            if (!isOver && worker is not null)
            {
                await GiveUpAsync(worker).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Checks the wish and writes down what a later daemon has to know. When this throws, nothing has begun.</summary>
    /// <returns>The worker that has the disk.</returns>
    /// <exception cref="ApiException">It cannot be done.</exception>
    protected abstract Task<IWorker> PrepareAsync(CancellationToken cancellation);

    /// <summary>Lets the worker begin.</summary>
    /// <exception cref="WorkerException">It refuses.</exception>
    protected abstract Task BeginAsync(IWorker worker, CancellationToken cancellation);

    /// <summary>Takes the last step, everything is there. When this throws, nothing comes of it, unless <see cref="IsDecided"/>.</summary>
    /// <exception cref="ApiException">It failed.</exception>
    /// <exception cref="WorkerException">The worker failed.</exception>
    protected abstract Task FinishAsync(IWorker worker, CancellationToken cancellation);

    /// <summary>It is written down that it succeeded, whoever died before the last step: there is nothing to give up.</summary>
    protected virtual bool IsDecided => false;

    /// <summary>Nothing comes of it, and no worker is at it any more: undoes what <see cref="PrepareAsync"/> did.</summary>
    protected abstract void Undo();

    private async Task WatchAsync(IWorker worker, Action<double> progress, CancellationToken cancellation)
    {
        while (true)
        {
            DiskCopyInfo info = await worker.DiskCopyAsync(cancellation).ConfigureAwait(false);
            if (info.Problem is { } problem)
            {
                throw new ApiException(info.NoSpace ? 507 : 502, info.NoSpace ? ControlCodes.NoSpace : ControlCodes.DiskCopyFailed,
                    $"the disk could not be {Verb}", $"{vm.Name}: {device}: {problem}; the VM goes on with {Otherwise}");
            }

            if (info.State is DiskCopyState.Mirrored)
            {
                return;
            }

            if (info.State is not DiskCopyState.Copying)
            {
                throw new WorkerException(ControlCodes.BadAnswer, $"the worker does not know that {device} is being {Verb}");
            }

            progress(0.99 * info.CopiedBytes / Math.Max(1, info.TotalBytes));
            await Task.Delay(s_interval, cancellation).ConfigureAwait(false);
        }
    }

    private async Task GiveUpAsync(IWorker worker)
    {
        if (IsDecided)
        {
            return;
        }

        if (!worker.Ended.IsCompleted)
        {
            using CancellationTokenSource deadline = new(s_undo);
            try
            {
                await worker.StepDiskCopyAsync(device, DiskCopyStep.Cancel, deadline.Token).ConfigureAwait(false);
            }
            catch (Exception cause) when (cause is WorkerException or OperationCanceledException)
            {
                DaemonLog.CopyNotUndone(vm.Log, vm.Name, cause.Message);
            }
        }

        Undo();
    }
}
