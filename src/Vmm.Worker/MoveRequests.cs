using Vmm.Contracts.Control;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Worker.Confinement;

namespace Vmm.Worker;

/// <summary>The requests for a VM on its way to another worker, or from one. Disposing gives up what comes and was not built.</summary>
/// <param name="sandbox">Confines the threads that receive.</param>
/// <param name="tellState">Tells where the VM stands.</param>
internal sealed class MoveRequests(Sandbox sandbox, Action tellState) : IDisposable
{
    /// <summary>A VM that comes from another worker, until it is built.</summary>
    internal HostedReceive? Incoming { get; private set; }

    /// <summary>Carries one out, and answers.</summary>
    /// <param name="reply">The request.</param>
    /// <param name="passed">Its descriptors.</param>
    /// <param name="machine">The VM of this worker; null: it has none yet.</param>
    /// <exception cref="RequestException">It cannot be done.</exception>
    internal void Do(ControlReply reply, DescriptorResources passed, HostedMachine? machine)
    {
        switch (reply.Frame.Kind)
        {
            case ControlKinds.Move when machine is not null:
                machine.Moves.Begin(WorkerService.Body(reply, ControlJson.Default.MoveBody), passed);
                reply.Ok();
                break;
            case ControlKinds.MoveStatus when machine is not null:
                reply.Ok(machine.Moves.Info, ControlJson.Default.MoveInfo);
                break;
            case ControlKinds.MoveStop when machine is not null:
                MoveInfo stopped = machine.Moves.Stop(WorkerService.Body(reply, ControlJson.Default.MoveStopBody));
                tellState();
                reply.Ok(stopped, ControlJson.Default.MoveInfo);
                break;
            case ControlKinds.MoveCancel when machine is not null:
                machine.Moves.Cancel();
                tellState();
                reply.Ok();
                break;
            case ControlKinds.Receive when machine is null && Incoming is null:
                Incoming = HostedReceive.Begin(
                    WorkerService.Body(reply, ControlJson.Default.ReceiveBody), passed, sandbox.Early(IncomingMachine.Needs));
                reply.Ok();
                break;
            case ControlKinds.ReceiveStatus when Incoming is { } incoming:
                reply.Ok(incoming.Info, ControlJson.Default.ReceiveInfo);
                break;
            default:
                throw new RequestException(ControlCodes.WrongState, machine is null
                    ? "there is no VM in this worker, or one comes already" : "this worker has its VM already");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Incoming?.Dispose();
        Incoming = null;
    }
}
