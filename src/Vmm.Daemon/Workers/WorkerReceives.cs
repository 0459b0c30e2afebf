using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>A worker without a VM gets one from another worker, asked for over its connection.</summary>
/// <param name="link">The connection.</param>
/// <param name="greet">Asks the worker what it speaks.</param>
internal sealed class WorkerReceives(WorkerLink link, Func<Task> greet)
{
    /// <summary>Begins.</summary>
    /// <param name="spec">What was admitted.</param>
    /// <param name="channels">The channels; not owned.</param>
    /// <param name="mayPass">The sender is a worker of this host, and may pass the memory itself.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="WorkerException">It does not know how, or cannot.</exception>
    internal async Task BeginAsync(
        VmSpec spec, IReadOnlyList<FileDescriptorHandle> channels, bool mayPass, CancellationToken cancellation)
    {
        if (link.Client.Peer is null)
        {
            await greet().ConfigureAwait(false); // a new process: what it knows is not known yet
        }

        if (link.Client.Peer is { } peer && !peer.Can(ControlVersion.Moves))
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld, "the installed vmm-worker is of an earlier release, which gets no VM from another one");
        }

        ReceiveBody body = new(VmSpecJson.Write(spec), channels.Count, mayPass);
        ControlClient.Answer answer = await link.Client.CallAsync(
            ControlKinds.Receive,
            ControlCodec.Body(body, ControlJson.Default.ReceiveBody),
            [.. Enumerable.Range(0, channels.Count).Select(ResourceNames.Channel)],
            [.. channels],
            cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <summary>How far it is.</summary>
    /// <exception cref="WorkerException">It does not answer.</exception>
    internal Task<ReceiveInfo> StatusAsync(CancellationToken cancellation) =>
        link.AskAsync(ControlKinds.ReceiveStatus, ControlJson.Default.ReceiveInfo, null, cancellation);
}
