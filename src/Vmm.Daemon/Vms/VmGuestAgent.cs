using System.Diagnostics;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Guests.Qemu;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Vms;

/// <summary>The agent in a VM's guest. What it says is told and decides nothing else.</summary>
/// <param name="vm">The VM.</param>
/// <param name="standard">The agent that distributions ship, which is asked where ours does not answer.</param>
internal sealed class VmGuestAgent(VmSupervisor vm, VmStandardAgent standard)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(3), s_hold = TimeSpan.FromSeconds(1);
    private const string NoPort = "the VM has no vsock, and no guestAgent: its spec needs one of them for an agent";
    private readonly Lock _gate = new();
    private Task<GuestAgentInfo>? _asking;
    private long _askedAt;

    /// <summary>Whether one answers, and what it can. However many ask, the guest is asked once a second.</summary>
    /// <exception cref="ApiException">The VM does not run.</exception>
    internal Task<GuestAgentInfo> AskAsync(CancellationToken cancellation)
    {
        vm.RequireWorker();
        lock (_gate)
        {
            if (_asking is null || (_asking.IsCompleted && Stopwatch.GetElapsedTime(_askedAt) > s_hold))
            {
                (_askedAt, _asking) = (Stopwatch.GetTimestamp(), AskEachAsync());
            }

            return _asking.WaitAsync(cancellation);
        }
    }

    /// <summary>
    /// Freezes the guest's file systems until the answer is disposed of. Never in the way of what it is for: a guest without an agent is
    /// one that is not frozen, and the answer tells why.
    /// </summary>
    /// <param name="limit">How long at most, <see cref="GuestFreeze.LongestLimit"/> or less.</param>
    /// <param name="cancellation">Gives up; the guest thaws.</param>
    internal async Task<GuestFreeze> FreezeAsync(TimeSpan limit, CancellationToken cancellation)
    {
        string path = vm.Store.Spec?.Vsock?.Path ?? "";
        if (path.Length == 0 && !standard.HasPort)
        {
            return GuestFreeze.NotAsked(QuiesceState.NoAgent, NoPort);
        }

        if (vm.Snapshot.State is var state && state != VmState.Running)
        {
            return GuestFreeze.NotAsked(QuiesceState.Refused, CannotAnswer(state));
        }

        // Ours first: it thaws by itself, whatever becomes of this host.
        GuestFreeze? ours = path.Length == 0 ? null : await GuestFreeze.BeginAsync(path, limit, cancellation).ConfigureAwait(false);
        return ours is null || (ours.Result.State == QuiesceState.NoAgent && standard.HasPort)
            ? await GuestFreeze.BeginAsync(standard.OpenFreezerAsync, limit, cancellation).ConfigureAwait(false)
            : ours;
    }

    private async Task<GuestAgentInfo> AskEachAsync()
    {
        GuestAgentInfo ours = WhyNot(out string path) is { } why
            ? new GuestAgentInfo(Answers: false, Why: why)
            : await AskNowAsync(path).ConfigureAwait(false);
        if (ours.Answers || !standard.HasPort)
        {
            return ours;
        }

        try
        {
            return await standard.ConverseAsync(QemuFacts.AgentAsync, s_patience, CancellationToken.None).ConfigureAwait(false);
        }
        catch (QemuAgentException e)
        {
            return new GuestAgentInfo(Answers: false, Why: e.Message);
        }
    }

    private static async Task<GuestAgentInfo> AskNowAsync(string path)
    {
        using CancellationTokenSource deadline = new(s_patience);
        try
        {
            using AgentConnection? agent = await AgentConnection.OpenAsync(path, deadline.Token).ConfigureAwait(false);
            byte[]? line = agent is null ? null
                : await agent.AskAsync("""{"v":1,"get":"agent"}""", deadline.Token).ConfigureAwait(false);
            return (line is null ? null : AgentAnswer.TryRead(line)) switch
            {
                { Agent: { } version } answer => new GuestAgentInfo(true, version, answer.Memory, answer.Freeze, answer.Why),
                { Error: AgentAnswer.NotUnderstood } =>
                    new GuestAgentInfo(true, "1.0", Memory: true, Why: "it is of a release that cannot freeze"),
                _ => new GuestAgentInfo(
                    Answers: false, Why: agent is null ? "no agent listens in the guest" : "what listens says nothing sound"),
            };
        }
        catch (OperationCanceledException)
        {
            return new GuestAgentInfo(Answers: false, Why: "no agent answers in the guest");
        }
    }

    private string? WhyNot(out string path)
    {
        path = vm.Store.Spec?.Vsock?.Path ?? "";
        VmState state = vm.Snapshot.State;
        return path.Length == 0 ? NoPort : state != VmState.Running ? CannotAnswer(state) : null;
    }

    private static string CannotAnswer(VmState state) => $"the VM is {state.Word()}: its guest cannot answer";
}
