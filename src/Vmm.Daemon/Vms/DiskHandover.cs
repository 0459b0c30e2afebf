using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>
/// A running disk goes over from one file to another. Which of them is the disk is what the spec names; both have everything until the
/// worker has gone over, too.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="what">What goes on with the disk, for errors: <c>copy</c>, <c>commit</c>.</param>
internal sealed class DiskHandover(VmSupervisor vm, string what)
{
    private const int MostTries = 3;

    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(250);

    /// <summary>The spec names a file as a disk.</summary>
    internal static bool Names(VmSpec spec, string path) => spec.Disks.Any(disk => IsSame(disk.Path, path));

    /// <summary>The spec with one disk in place of another.</summary>
    /// <exception cref="ApiException">The disk is not in the stored spec.</exception>
    internal (string Text, VmSpec Spec) Edited(DiskSpec from, DiskSpec to)
    {
        int index = vm.Store.RequireSpec().Disks.ToList().FindIndex(disk => IsSame(disk.Path, from.Path));
        return index < 0
            ? throw new ApiException(409, "disk-not-stored", "the disk is not in the stored spec",
                $"{vm.Name}: {from.Path} is plugged in for this run only: a {what} is for disks that stay")
            : SpecDevices.Edit(
                vm.Store,
                (text, folder) => SpecEdit.ReplaceDisk(text, folder, index, to),
                spec => spec with { Disks = [.. spec.Disks.Select((disk, i) => i == index ? to : disk)] });
    }

    /// <summary>
    /// The spec names the new file. Sees to it that the worker has it, too, or gives the spec the old one back, which the worker that could
    /// not go over still has whole. A worker that is gone needs nothing: the new file has all that its guest was told is done.
    /// </summary>
    /// <param name="worker">The VM's worker.</param>
    /// <param name="device">Name of the disk.</param>
    /// <param name="target">The new file.</param>
    /// <param name="before">Makes of the disk as the spec has it what it was before.</param>
    /// <param name="cancellation">Gives up: who comes next decides.</param>
    /// <returns>False: the old file is the disk again.</returns>
    internal async Task<bool> DecideAsync(
        IWorker worker, string device, string target, Func<DiskSpec, DiskSpec> before, CancellationToken cancellation)
    {
        int refusals = 0;
        while (!worker.Ended.IsCompleted)
        {
            try
            {
                DiskCopyInfo info = await worker.DiskCopyAsync(cancellation).ConfigureAwait(false);
                if (info.State == DiskCopyState.None)
                {
                    return true;
                }

                if (info.Problem is null && refusals < MostTries)
                {
                    await worker.StepDiskCopyAsync(device, DiskCopyStep.Finish, cancellation).ConfigureAwait(false);
                    return true;
                }

                // Sealed still, so that nothing was answered that the old file has not.
                DiskSpec now = vm.Store.RequireSpec().Disks.First(disk => IsSame(disk.Path, target));
                (string text, VmSpec spec) = Edited(now, before(now));
                vm.Store.WriteSpec(text, spec);
                return false;
            }
            catch (WorkerException cause)
            {
                // Asked again: without an answer it may have been done, or be done later.
                refusals += cause.Code is ControlCodes.DiskCopyFailed ? 1 : 0;
                DaemonLog.HandoverNotFinished(vm.Log, vm.Name, what, device, cause.Message);
            }

            await Task.WhenAny(worker.Ended, Task.Delay(s_interval, cancellation)).ConfigureAwait(false);
        }

        return true;
    }

    private static bool IsSame(string one, string other) =>
        string.Equals(Path.GetFullPath(one, "/"), Path.GetFullPath(other, "/"), StringComparison.Ordinal);
}
