namespace Vmm.Storage;

/// <summary>The nodes of both disks of a mirror on one loop.</summary>
/// <param name="mirror">The mirror.</param>
/// <param name="source">The node of the disk that is copied; owned.</param>
/// <param name="target">The node of the copy; owned.</param>
internal sealed class MirrorPair(DiskMirror mirror, IBlockNode source, IBlockNode target) : IDisposable
{
    /// <summary>The node of the disk that is copied.</summary>
    internal IBlockNode Source => source;

    /// <summary>The node of the copy.</summary>
    internal IBlockNode Target => target;

    /// <summary>As <see cref="IBlockNode.WritesZeroesAsData"/>, of the two together.</summary>
    internal bool WritesZeroesAsData(bool mayUnmap) => source.WritesZeroesAsData(mayUnmap) || target.WritesZeroesAsData(mayUnmap);

    /// <summary>Closes both; only the one that is the disk now has to succeed with its flush. Nothing is in flight.</summary>
    internal void Close(TaskCompletionSource closed)
    {
        Task disk = source.FlushAndCloseAsync().AsTask(), copy = target.FlushAndCloseAsync().AsTask();
        _ = Task.WhenAll(disk, copy).ContinueWith(
            _ => EndClosing(disk, copy, closed),
            CancellationToken.None,
            TaskContinuationOptions.ExecuteSynchronously, // on the loop's thread
            TaskScheduler.Default);
    }

    public void Dispose()
    {
        source.Dispose();
        target.Dispose();
        mirror.Left();
    }

    private void EndClosing(Task disk, Task copy, TaskCompletionSource closed)
    {
        (disk, copy) = mirror.IsFinished ? (copy, disk) : (disk, copy);
        if (copy.Exception?.InnerException is BlockException lost)
        {
            mirror.Fail(lost.Status, $"the target is of no use: {lost.Message}");
        }

        mirror.Left();
        if (disk.Exception is { } failed)
        {
            closed.SetException(failed.InnerExceptions);
        }
        else
        {
            closed.SetResult();
        }
    }
}
