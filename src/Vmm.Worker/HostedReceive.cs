using Vmm.Contracts.Control;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Worker;

/// <summary>A VM that comes to this worker from another one, before there is a machine.</summary>
internal sealed class HostedReceive : IDisposable
{
    private readonly IncomingMachine _incoming;

    private HostedReceive(IncomingMachine incoming) => _incoming = incoming;

    /// <summary>How far it is. Any thread.</summary>
    internal ReceiveInfo Info => _incoming.IsComplete ? new(ReceiveStage.Complete, _incoming.ReceivedBytes)
        : _incoming.Problem is { } problem ? new(ReceiveStage.Failed, _incoming.ReceivedBytes, problem)
        : new(ReceiveStage.Receiving, _incoming.ReceivedBytes);

    /// <summary>It was paused, and is to stay so.</summary>
    internal bool IsPaused => _incoming.IsPaused;

    /// <summary>Begins to receive.</summary>
    /// <param name="body">What was admitted.</param>
    /// <param name="passed">Its channels.</param>
    /// <param name="threads">Confines the threads that read them.</param>
    /// <exception cref="RequestException">It makes no sense, or the host lacks something.</exception>
    internal static HostedReceive Begin(ReceiveBody body, DescriptorResources passed, IIoThreads threads)
    {
        if (body.Channels is < 1 or > MoveBody.MostChannels)
        {
            throw new RequestException(ControlCodes.BadFrame, $"a VM cannot come by {body.Channels} channels");
        }

        VmSpec spec = VmSpecJson.TryRead(body.Spec, out string problem) ?? throw new RequestException(ControlCodes.SpecInvalid, problem);
        try
        {
            return new HostedReceive(IncomingMachine.Begin(spec, HostedMove.Channels(body.Channels, passed), threads, body.MayPass));
        }
        catch (Exception cause) when (cause is KernelException or ArgumentException)
        {
            throw new RequestException(ControlCodes.MoveFailed, cause.Message, cause);
        }
    }

    /// <summary>Builds the machine with what came.</summary>
    /// <inheritdoc cref="IncomingMachine.Build" path="/exception"/>
    internal VirtualMachine Build(VmSpec spec, DescriptorResources passed, IConsoleEndpoint console, EmptyVm? prepared) =>
        _incoming.Build(spec, passed, console, prepared);

    /// <inheritdoc/>
    public void Dispose() => _incoming.Dispose();
}
