using Vmm.Spec;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// Tells what a VM has written to its disks since the last cut. One that knows more than was written costs reads, one that knows less would
/// lose data: who is not sure says that all may differ, and why.
/// </summary>
internal interface IChangeSource
{
    /// <summary>A cut begins: what is written behind its instant belongs to the next one.</summary>
    /// <param name="disks">The disks that are about to be cut.</param>
    /// <param name="cancellation">Gives up.</param>
    Task BeginAsync(IReadOnlyList<string> disks, CancellationToken cancellation);

    /// <summary>The VM is off, and stays so: what was written until now is pending.</summary>
    /// <param name="disks">The disks.</param>
    /// <exception cref="Vms.ApiException">That cannot be written.</exception>
    void CutAtRest(IReadOnlyList<(string Name, DiskSpec Disk)> disks);

    /// <summary>Which extents may differ from the last point that was cut.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="path">The file that has it as it was at the instant.</param>
    ExtentSet Pending(string disk, string path);

    /// <summary>The cut is over. When it made no point, what was pending is so with the next one as well.</summary>
    /// <param name="isDurable">Its point is in the spool: what was pending is forgotten.</param>
    Task EndAsync(bool isDurable);

    /// <summary>Nobody asks any more.</summary>
    /// <param name="cancellation">Gives up.</param>
    Task LeaveAsync(CancellationToken cancellation);
}
