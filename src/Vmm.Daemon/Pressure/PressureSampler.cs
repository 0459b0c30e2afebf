using System.Collections.Concurrent;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Pressure;

/// <summary>
/// Asks workers and guests how their memory stands, all at once and in bounded time. One that does not answer is not asked again for a
/// while, longer each time, so that it does not delay every round.
/// </summary>
internal sealed class PressureSampler(VmManager vms, TimeProvider time)
{
    /// <summary>For a worker, and for an agent beside it.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan s_firstPause = TimeSpan.FromSeconds(10), s_longestPause = TimeSpan.FromMinutes(2);

    private readonly ConcurrentDictionary<string, (long From, TimeSpan Pause)> _silent = new(StringComparer.Ordinal);

    /// <summary>All VMs that run: those that can be changed, and why the others cannot.</summary>
    /// <param name="askGuests">Guests are asked, too: their balloons may be used now.</param>
    /// <param name="cancellation">Gives up.</param>
    internal async Task<(IReadOnlyList<PressedVm> Vms, IReadOnlyList<PressureVm> LeftAlone)> ReadAsync(
        bool askGuests, CancellationToken cancellation)
    {
        List<PressureVm> alone = [];
        List<Task<(string Name, PressedVm? Vm)>> questions = [];
        foreach (ManagedVm vm in vms.All)
        {
            if (vm.WorkerProcess is null || vm.Spec is not { } spec)
            {
                _silent.TryRemove(vm.Record.Name, out _);
            }
            else if (spec.Paging is null)
            {
                alone.Add(Alone(spec.Name, "it was started without a resident limit, so it has no pager to take memory from it"));
            }
            else if (_silent.TryGetValue(spec.Name, out (long From, TimeSpan Pause) silent)
                && time.GetElapsedTime(silent.From) < silent.Pause)
            {
                alone.Add(Alone(spec.Name, "its worker does not answer"));
            }
            else
            {
                questions.Add(AskAsync(vm, spec.Name, askGuests, cancellation));
            }
        }

        List<PressedVm> pressed = [];
        foreach ((string name, PressedVm? vm) in await Task.WhenAll(questions).ConfigureAwait(false))
        {
            if (vm is not null)
            {
                pressed.Add(vm);
            }
            else
            {
                alone.Add(Alone(name, "its worker does not answer, or says nothing sound"));
            }
        }

        cancellation.ThrowIfCancellationRequested();
        return (pressed, alone);
    }

    private async Task<(string Name, PressedVm? Vm)> AskAsync(
        ManagedVm vm, string name, bool askGuest, CancellationToken cancellation)
    {
        await Task.Yield(); // a worker that blocks on its socket does not keep the next one from being asked
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(Patience);
        BalancerReading? reading;
        bool isLate = false;
        try
        {
            // A worker that heeds no deadline is left behind.
            reading = await vm.Memory.SampleAsync(deadline.Token, evenPaused: true).WaitAsync(Patience, cancellation).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            (reading, isLate) = (null, true);
        }

        if (reading is null && !isLate && !deadline.IsCancellationRequested)
        {
            return (name, null); // it ended, or said nonsense at once
        }

        if (reading is null)
        {
            TimeSpan pause = _silent.TryGetValue(name, out (long From, TimeSpan Pause) before) ? before.Pause * 2 : s_firstPause;
            _silent[name] = (time.GetTimestamp(), pause > s_longestPause ? s_longestPause : pause);
            return (name, null);
        }

        _silent.TryRemove(name, out _);
        AgentReport? report = askGuest && MayUseBalloon(reading.Spec) && reading.Spec.Vsock is { } vsock
            ? await AgentClient.AskAsync(vsock.Path, Patience, cancellation).ConfigureAwait(false)
            : null;
        return (name, PressedOf(reading, report));
    }

    /// <summary>
    /// A VM as the policy needs it; null when its worker tells nothing of its pager. Everything that a worker or a guest says is cut to
    /// what can be: it may err about itself only.
    /// </summary>
    internal static PressedVm? PressedOf(BalancerReading reading, AgentReport? report)
    {
        if (reading.Memory.Paging is not { } paging)
        {
            return null;
        }

        VmSpec spec = reading.Spec;
        ulong configured = spec.ResidentLimit.Bytes, least = Math.Max(spec.MinResident.Bytes, Math.Min(paging.LeastBytes, configured));
        return new PressedVm(
            reading.Vm, configured, least, paging.LimitBytes, Math.Min(paging.ResidentBytes, spec.MostMemory.Bytes),
            spec.Paging?.Weight ?? PagingSpec.DefaultWeight)
        {
            Nodes = NodesOf(reading),
            PagesIn = paging.PagesIn,
            PagesOut = paging.PagesOut,
            StagedFaults = paging.StagedFaults,
            Stopped = paging.Stopped is not null,
            Balloon = MayUseBalloon(spec) && reading.Memory.Balloon is { } balloon ? BalloonOf(spec, balloon, report) : null,
        };
    }

    // A balloon that the spec gives to the balancer is the balancer's, whether it is on or not: the two never pull at the same one.
    private static bool MayUseBalloon(VmSpec spec) => spec is { Balloon: not null, BalancedByBalloon: false };

    private static PressedBalloon BalloonOf(VmSpec spec, BalloonMemoryInfo balloon, AgentReport? report)
    {
        ulong memory = spec.Memory.Bytes, held = Math.Min(balloon.HeldBytes, memory);
        ulong? said = report is not null
            ? report.Nodes.Aggregate(0UL, (sum, node) => Math.Min(memory, sum + Math.Min(memory, node.Available)))
            : balloon.SaidMsAgo is <= 60_000 ? balloon.AvailableBytes : null;
        return new PressedBalloon(Math.Min(balloon.TargetBytes, memory), held, memory,
            said is { } available ? Math.Min(available, memory - held) : null, balloon.Reason is not null);
    }

    private static Dictionary<int, double> NodesOf(BalancerReading reading)
    {
        double all = reading.Memory.Vnodes.Sum(vnode => (double)vnode.PresentBytes);
        Dictionary<int, double> nodes = [];
        foreach (VnodeMemoryInfo vnode in all > 0 ? reading.Memory.Vnodes : [])
        {
            if (reading.HostNodes.TryGetValue(vnode.Vnode, out int node))
            {
                nodes[node] = Math.Min(1, nodes.GetValueOrDefault(node) + (vnode.PresentBytes / all));
            }
        }

        return nodes;
    }

    private static PressureVm Alone(string vm, string why) => new(vm, 0, 0, 0, 0, 0, LeftAlone: why);
}
