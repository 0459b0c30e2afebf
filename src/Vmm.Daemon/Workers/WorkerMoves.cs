using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>Moves of a worker's VM to another worker, asked for over its connection.</summary>
/// <param name="link">The connection.</param>
/// <param name="greet">Asks the worker what it speaks.</param>
internal sealed class WorkerMoves(WorkerLink link, Func<Task> greet) : IWorkerMoves
{
    /// <inheritdoc/>
    public async Task<bool> CanPassMemoryAsync()
    {
        if (link.Client.Peer is null)
        {
            await greet().ConfigureAwait(false);
        }

        return link.Client.Peer is { } peer && peer.Can(ControlVersion.MemoryPassing);
    }

    /// <inheritdoc/>
    public async Task BeginAsync(MoveBody wish, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation)
    {
        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.Moves))
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld, "this VM's worker, of an earlier release, cannot move it: stop the VM and start it again");
        }

        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.Move,
            ControlCodec.Body(wish, ControlJson.Default.MoveBody),
            [.. Enumerable.Range(0, channels.Count).Select(ResourceNames.Channel)],
            [.. channels],
            cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <inheritdoc/>
    public Task<MoveInfo> StatusAsync(CancellationToken cancellation) =>
        link.AskAsync(ControlKinds.MoveStatus, ControlJson.Default.MoveInfo, null, cancellation);

    /// <inheritdoc/>
    public async Task<MoveInfo> StopAsync(TimeSpan longest, CancellationToken cancellation)
    {
        MoveStopBody body = new((int)longest.TotalMilliseconds);
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.MoveStop,
            ControlCodec.Body(body, ControlJson.Default.MoveStopBody),
            null,
            [],
            cancellation,
            longest).ConfigureAwait(false);
        return WorkerLink.Body(answer, ControlJson.Default.MoveInfo);
    }

    /// <inheritdoc/>
    public Task CancelAsync(CancellationToken cancellation) => link.CallAsync(ControlKinds.MoveCancel, null, cancellation);
}
