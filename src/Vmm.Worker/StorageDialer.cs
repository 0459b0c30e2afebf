using Vmm.Interop;

namespace Vmm.Worker;

/// <summary>
/// Lets disks reach their servers again: a confined worker may not make sockets, so it asks vmmd. Without one, or without an answer, the
/// wish ends by its caller's deadline.
/// </summary>
/// <param name="ask">Sends the wish; false when there is nobody to ask.</param>
internal sealed class StorageDialer(Func<long, string, bool> ask)
{
    private readonly Lock _gate = new();
    private readonly Dictionary<long, TaskCompletionSource<FileDescriptorHandle>> _wishes = [];
    private long _last;

    /// <summary>Connects to the server of a disk. Any thread.</summary>
    /// <exception cref="IOException">It cannot be connected.</exception>
    internal async Task<FileDescriptorHandle> DialAsync(string disk, CancellationToken cancel)
    {
        TaskCompletionSource<FileDescriptorHandle> wish = new(TaskCreationOptions.RunContinuationsAsynchronously);
        long number;
        lock (_gate)
        {
            number = ++_last;
            _wishes.Add(number, wish);
        }

        try
        {
            return ask(number, disk) ? await wish.Task.WaitAsync(cancel).ConfigureAwait(false)
                : throw new IOException("vmmd, which connects for this VM, is not there");
        }
        catch (OperationCanceledException)
        {
            if (!wish.TrySetCanceled(CancellationToken.None) && wish.Task.IsCompletedSuccessfully)
            {
                (await wish.Task.ConfigureAwait(false)).Dispose(); // it came in this moment
            }

            throw;
        }
        finally
        {
            lock (_gate)
            {
                _wishes.Remove(number);
            }
        }
    }

    /// <summary>An answer; one that nobody waits for any more is closed.</summary>
    internal void Answer(long number, FileDescriptorHandle? socket, string? problem)
    {
        TaskCompletionSource<FileDescriptorHandle>? wish;
        lock (_gate)
        {
            _wishes.Remove(number, out wish);
        }

        bool taken = socket is null ? wish?.TrySetException(new IOException(problem ?? "vmmd passed no socket")) ?? true
            : wish?.TrySetResult(socket) ?? false;
        if (!taken)
        {
            socket?.Dispose();
        }
    }
}
