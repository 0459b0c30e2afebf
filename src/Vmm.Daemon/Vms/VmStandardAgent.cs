using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Guests.Qemu;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The standard agent in a VM's guest. Its port is one stream, so conversations take turns; each is short and has its time. What it says is
/// told and decides nothing else.
/// </summary>
/// <param name="vm">The VM.</param>
#pragma warning disable CA1001 // Its semaphore has nothing to release as long as nobody asks for its handle.
internal sealed class VmStandardAgent(VmSupervisor vm)
#pragma warning restore CA1001
{
    private const int NanosecondsPerTick = 100;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private readonly SemaphoreSlim _turn = new(1, 1);

    /// <summary>The spec has a port for it.</summary>
    internal bool HasPort => vm.Store.Spec is { GuestAgent: true };

    /// <summary>What the guest is, as it says.</summary>
    /// <exception cref="ApiException">The VM does not run, or no agent answers.</exception>
    internal Task<GuestFacts> FactsAsync(CancellationToken cancellation)
    {
        vm.RequireWorker();
        return ForApiAsync(() => ConverseAsync(QemuFacts.AskAsync, s_patience, cancellation));
    }

    /// <summary>
    /// Sets the guest's clock, which stood still while the VM was saved, to the host's. In the background: a guest without an agent keeps
    /// nobody waiting.
    /// </summary>
    internal async Task SetTimeAsync()
    {
        if (!HasPort)
        {
            return;
        }

        try
        {
            await ConverseAsync(
                (agent, token) => agent.AskAsync(
                    "guest-set-time", QemuJson.Default.JsonElement, token,
                    json => json.WriteNumber("time"u8, (DateTimeOffset.UtcNow - DateTimeOffset.UnixEpoch).Ticks * NanosecondsPerTick)),
                s_patience, CancellationToken.None).ConfigureAwait(false);
            DaemonLog.GuestTimeSet(vm.Log, vm.Name);
        }
        catch (QemuAgentException e)
        {
            DaemonLog.GuestTimeNotSet(vm.Log, vm.Name, e.Message);
        }
    }

    /// <summary>Asks the guest to power off. It ends then, or does not: nothing else can be known.</summary>
    internal async Task ShutDownAsync()
    {
        try
        {
            await ConverseAsync(
                async (agent, token) =>
                {
                    // It answers only when it refuses.
                    await agent.SendAsync("guest-shutdown", json => json.WriteString("mode"u8, "powerdown"u8), token)
                        .ConfigureAwait(false);
                    return true;
                },
                s_patience, CancellationToken.None).ConfigureAwait(false);
            DaemonLog.GuestShutDown(vm.Log, vm.Name);
        }
        catch (QemuAgentException e)
        {
            DaemonLog.GuestNotShutDown(vm.Log, vm.Name, e.Message);
        }
    }

    /// <summary>One conversation.</summary>
    /// <param name="questions">What is asked.</param>
    /// <param name="patience">How long it may take, with the time until it is its turn.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="QemuAgentException">No agent answers.</exception>
    internal async Task<T> ConverseAsync<T>(
        Func<QemuAgent, CancellationToken, Task<T>> questions, TimeSpan patience, CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(patience);
        try
        {
            await _turn.WaitAsync(deadline.Token).ConfigureAwait(false);
            try
            {
                using QemuAgent agent = await OpenAsync(null, deadline.Token).ConfigureAwait(false);
                return await questions(agent, deadline.Token).ConfigureAwait(false);
            }
            finally
            {
                _turn.Release();
            }
        }
        catch (OperationCanceledException cause) when (!cancellation.IsCancellationRequested)
        {
            throw new QemuAgentException(
                QemuAgentFault.Silent, $"the guest's agent did not answer within {patience.TotalSeconds:0} s", cause);
        }
    }

    /// <summary>A conversation that can freeze, which has its turn until it ends; null when no agent answers.</summary>
    /// <exception cref="OperationCanceledException">The waiting was ended.</exception>
    internal async Task<IFreezingAgent?> OpenFreezerAsync(CancellationToken cancellation)
    {
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        bool isOpen = false;
        try
        {
            QemuAgent agent = await OpenAsync(QemuAgent.Thaw, cancellation).ConfigureAwait(false);
            isOpen = true;
            return new QemuFreezer(agent, () => _turn.Release());
        }
        catch (QemuAgentException)
        {
            return null;
        }
        finally
        {
            if (!isOpen)
            {
                _turn.Release();
            }
        }
    }

    /// <summary>Does it, and makes an answer for a client of what fails.</summary>
    /// <exception cref="ApiException">No agent answers.</exception>
    internal async Task<T> ForApiAsync<T>(Func<Task<T>> conversation)
    {
        try
        {
            return await conversation().ConfigureAwait(false);
        }
        catch (QemuAgentException e)
        {
            (int status, string code) = e.Fault switch
            {
                QemuAgentFault.None => (409, ControlCodes.NoAgent),
                QemuAgentFault.Silent => (504, "agent-silent"),
                QemuAgentFault.Refused => (422, "agent-refused"),
                _ => (502, "agent-unsound"),
            };
            throw new ApiException(status, code, "the guest's agent gave no answer", $"{vm.Name}: {e.Message}", inner: e);
        }
    }

    private async Task<QemuAgent> OpenAsync(byte[]? farewell, CancellationToken cancellation)
    {
        if (!HasPort)
        {
            throw new QemuAgentException(QemuAgentFault.None, "its spec has no guestAgent: true, so there is no port for an agent");
        }

        if (vm.Snapshot.State is var state && state != VmState.Running)
        {
            throw new QemuAgentException(QemuAgentFault.None, $"the VM is {state.Word()}: its guest cannot answer");
        }

        if (vm.Worker is not { } worker)
        {
            throw new QemuAgentException(QemuAgentFault.None, "the VM does not run");
        }

        try
        {
            Stream stream = await worker.OpenAgentAsync(farewell, cancellation).ConfigureAwait(false);
            return await QemuAgent.OpenAsync(stream, cancellation).ConfigureAwait(false);
        }
        catch (WorkerException e)
        {
            throw new QemuAgentException(QemuAgentFault.None, string.Equals(e.Code, ControlCodes.UnknownKind, StringComparison.Ordinal)
                ? "its worker is of a release that knows no such agent: restart the VM"
                : e.Message, e);
        }
    }
}
