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

    /// <summary>Which extents may differ from the last point that was cut.</summary>
    /// <param name="disk">The disk.</param>
    /// <param name="path">The file that has it as it was at the instant.</param>
    ExtentSet Pending(string disk, string path);

    /// <summary>The cut is over. When it made no point, what was pending is so with the next one as well.</summary>
    /// <param name="isDurable">Its point is in the spool: what was pending is forgotten.</param>
    Task EndAsync(bool isDurable);
}

/// <summary>Nobody takes note of writes: hashes of all that is allocated are compared.</summary>
internal sealed class NoChangeLog : IChangeSource
{
    private static readonly ExtentSet s_all = ExtentSet.All("there is no change log");

    /// <inheritdoc/>
    public Task BeginAsync(IReadOnlyList<string> disks, CancellationToken cancellation) => Task.CompletedTask;

    /// <inheritdoc/>
    public ExtentSet Pending(string disk, string path) => s_all;

    /// <inheritdoc/>
    public Task EndAsync(bool isDurable) => Task.CompletedTask;
}
