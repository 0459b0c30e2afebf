using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>Saves of a worker's VM: its files are passed to it, and its limit on file sizes is raised meanwhile.</summary>
/// <param name="link">The connection.</param>
/// <param name="bounds">What keeps it in bounds.</param>
internal sealed class WorkerSaves(WorkerLink link, WorkerBounds bounds)
{
    private long _raised; // memory that files of saves may take, by now

    /// <inheritdoc cref="IWorker.SaveAsync"/>
    internal async Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.Saving))
        {
            throw TooOld();
        }

        ulong? before = bounds.FileLimit;
        if (bounds.LimitFiles(bytes, raise: true) is { } problem)
        {
            throw new WorkerException(
                ControlCodes.SaveFailed, $"the worker's limit on file sizes cannot be raised for the save: {problem}");
        }

        MakeRoom(files, bytes);
        try
        {
            ControlClient.Answer answer = await link.Client.CallAsync(
                ControlKinds.Save,
                null,
                [.. files.Select(file => ResourceNames.Saved(file.Name))],
                [.. files.Select(file => file.File)],
                cancellation,
                longest).ConfigureAwait(false);
            answer.Descriptor?.Dispose();
        }
        catch (WorkerException cause) when (cause.Code is ControlCodes.UnknownKind)
        {
            throw TooOld();
        }
        finally
        {
            if (before is { } limit)
            {
                _ = bounds.LimitFiles(limit, raise: false);
            }
        }
    }

    /// <inheritdoc cref="IWorker.UndoSaveAsync"/>
    internal async Task UndoAsync(CancellationToken cancellation)
    {
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.SaveCancel, null, null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    // Pages of files in memory are charged to the worker, which writes them: without room for them the kernel ends it, and the VM.
    // The limit stays raised: files of a save that is undone go after it.
    private void MakeRoom(IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes)
    {
        int inMemory = files.Count(file => MemoryDisks.IsAt(file.File));
        long needed = inMemory * (long)Math.Min(bytes, long.MaxValue / 64);
        if (needed <= _raised)
        {
            return;
        }

        if (bounds.AddMemory(needed - _raised) is { } problem)
        {
            throw new WorkerException(
                ControlCodes.SaveFailed, $"the folder is in memory, and the worker's memory limit cannot be raised for it: {problem}");
        }

        _raised = needed;
    }

    private static WorkerException TooOld() =>
        new(ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot save: stop the VM and start it again");
}
