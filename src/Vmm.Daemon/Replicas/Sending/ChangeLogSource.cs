using Vmm.Daemon.Vms;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Changes;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// What the change logs of a VM's disks say. A disk that can have none, since its worker is of an earlier release, say, is compared by its
/// hashes.
/// </summary>
/// <param name="logs">The logs.</param>
internal sealed class ChangeLogSource(VmChangeLogs logs) : IChangeSource
{
    // What more ranges than these would take of memory costs more than comparing hashes.
    private const int MostRanges = 1 << 20;

    private IReadOnlyList<string> _disks = [];
    private string? _problem;

    /// <inheritdoc/>
    public async Task BeginAsync(IReadOnlyList<string> disks, CancellationToken cancellation)
    {
        (_disks, _problem) = (disks, null);
        if (logs.Disks.ToHashSet(StringComparer.Ordinal).SetEquals(disks))
        {
            return;
        }

        try
        {
            await logs.WantAsync(disks, cancellation).ConfigureAwait(false);
        }
        catch (ApiException cause)
        {
            _problem = cause.Problem.Detail;
        }
    }

    /// <inheritdoc/>
    public void CutAtRest(IReadOnlyList<(string Name, DiskSpec Disk)> disks) => logs.CutAtRest(disks);

    /// <inheritdoc/>
    public ExtentSet Pending(string disk, string path)
    {
        if (logs.ReadPending(disk) is not { } pending)
        {
            return ExtentSet.All(_problem ?? "the disk has no change log");
        }

        if (pending.IsAll)
        {
            return ExtentSet.All(pending.Reason.Describe());
        }

        try
        {
            List<ExtentRange> ranges = [];
            foreach (ChangeRange range in pending.Ranges)
            {
                if (ranges.Count == MostRanges)
                {
                    return ExtentSet.All($"more than {MostRanges} ranges were written");
                }

                ranges.Add(new ExtentRange(
                    range.Offset / ChangeSet.ExtentBytes, (range.Length + ChangeSet.ExtentBytes - 1) / ChangeSet.ExtentBytes));
            }

            return ExtentSet.Of(ranges);
        }
        catch (BlockException cause)
        {
            return ExtentSet.All(cause.Message);
        }
    }

    /// <inheritdoc/>
    public Task EndAsync(bool isDurable)
    {
        if (isDurable)
        {
            foreach (string disk in _disks)
            {
                logs.Forget(disk);
            }
        }

        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public Task LeaveAsync(CancellationToken cancellation) => logs.WantAsync([], cancellation);
}
