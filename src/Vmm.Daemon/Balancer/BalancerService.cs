using System.Diagnostics;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Balancer;

/// <summary>
/// Looks at the VMs every few seconds, lets the policy decide, and passes on what it decided. A guest or worker that does not answer holds
/// nobody up.
/// </summary>
internal sealed class BalancerService(VmManager vms, BalancerOptions options, ILogger log, Func<HostTopology>? host = null)
    : IHostedService, IDisposable
{
    private const int Kept = 200;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly CancellationTokenSource _stop = new();
    private readonly BalancerRules _rules = new();
    private readonly BalancerState _state = new();
    private readonly Lock _gate = new();
    private readonly Queue<BalancerEntry> _entries = new();
    private readonly Func<HostTopology> _host = host ?? (() => HostTopology.Read());
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private BalancerOptions _options = options;
    private IReadOnlyList<BalancedVnode> _seen = [];
    private long _rounds, _grown, _shrunk;
    private Task _work = Task.CompletedTask;

    internal BalancerInfo Info
    {
        get
        {
            lock (_gate)
            {
                return new BalancerInfo(
                    _options.Enabled, _options.DryRun, (int)_options.Interval.TotalSeconds, _rounds, _seen, [.. _entries]);
            }
        }
    }

    /// <summary>Bytes that vnodes were asked to take and to give back, so far.</summary>
    internal (long Grown, long Shrunk) Moved => (Interlocked.Read(ref _grown), Interlocked.Read(ref _shrunk));

    /// <inheritdoc/>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        _work = Task.Run(LoopAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    internal BalancerInfo Set(BalancerWish wish)
    {
        lock (_gate)
        {
            _options = _options with { Enabled = wish.Enabled ?? _options.Enabled, DryRun = wish.DryRun ?? _options.DryRun };
            DaemonLog.BalancerSet(log, _options.Enabled ? _options.DryRun ? "in a dry run" : "on" : "off");
            return Info;
        }
    }

    /// <inheritdoc/>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _work.ConfigureAwait(false);
    }

    public void Dispose() => _stop.Dispose();

    /// <summary>One round.</summary>
    internal async Task RoundAsync(CancellationToken cancellation)
    {
        (BalancerReading Reading, AgentReport? Report)[] readings = await ReadAllAsync(cancellation).ConfigureAwait(false);
        List<VnodeSample> samples = [];
        List<BalancedVnode> seen = [];
        foreach ((BalancerReading reading, AgentReport? report) in readings)
        {
            foreach (VnodeMemoryInfo vnode in reading.Memory.Vnodes.Select(v => GuestPressure.AsVnode(reading, v)))
            {
                GuestPressure.Of pressure = GuestPressure.Vnode(reading, vnode, report);
                bool pinned = reading.Pinned.Contains(vnode.Vnode),
                    mine = reading.Spec.Balance is not null && vnode.MostBytes > vnode.LeastBytes;
                samples.Add(new VnodeSample(
                    reading.Vm, vnode.Vnode, reading.HostNodes.TryGetValue(vnode.Vnode, out int node) ? node : null, vnode.LeastBytes,
                    vnode.MostBytes,
                    // what a balloon takes below the least is somebody's wish
                    Math.Max(vnode.AskedBytes, vnode.LeastBytes), Math.Max(vnode.PresentBytes, vnode.LeastBytes), vnode.BlockBytes,
                    reading.Spec.Balance?.Weight ?? 1, pressure.Available, pressure.Stall, mine && !pinned && vnode.Driven,
                    reading.Spec.BalancedByBalloon));
                if (mine)
                {
                    seen.Add(new BalancedVnode(reading.Vm, vnode.Vnode, vnode.AskedBytes, vnode.PresentBytes, pressure.Available,
                        pressure.Stall * 100, pressure.Source, pinned, reading.Spec.BalancedByBalloon ? "balloon" : "virtio-mem"));
                }
            }
        }

        HostSample[] hosts = [.. _host().Nodes.Select(n => new HostSample(n.Id, n.TotalBytes, n.AvailableBytes))];
        bool dryRun = Info.DryRun;
        foreach (BalancerDecision decision in BalancerPolicy.Decide(new BalancerSnapshot(samples, hosts), _state, _rules, _clock.Elapsed))
        {
            await CarryOutAsync(decision, dryRun, cancellation).ConfigureAwait(false);
        }

        lock (_gate)
        {
            (_seen, _rounds) = (seen, _rounds + 1);
        }
    }

    private async Task<(BalancerReading Reading, AgentReport? Report)[]> ReadAllAsync(CancellationToken cancellation)
    {
        using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(s_patience * 2);
        (BalancerReading? Reading, AgentReport? Report)[] all = await Task.WhenAll(vms.All.Select(async vm =>
        {
            BalancerReading? reading = await vm.Memory.SampleAsync(deadline.Token).ConfigureAwait(false);
            AgentReport? report = reading is { Spec: { Balance: not null, Vsock: { } vsock } }
                ? await AgentClient.AskAsync(vsock.Path, s_patience, deadline.Token).ConfigureAwait(false)
                : null;
            return (reading, report);
        })).ConfigureAwait(false);
        return [.. all.Where(a => a.Reading is not null).Select(a => (a.Reading!, a.Report))];
    }

    private async Task CarryOutAsync(BalancerDecision decision, bool dryRun, CancellationToken cancellation)
    {
        string? problem = null;
        if (!dryRun)
        {
            try
            {
                await vms.Get(decision.Vm).Memory.BalanceAsync(
                    decision.Vnode,
                    decision.To,
                    $"{new ByteSize(decision.From)} to {new ByteSize(decision.To)}: {decision.Reason}",
                    cancellation).ConfigureAwait(false);
                Interlocked.Add(ref decision.To > decision.From ? ref _grown : ref _shrunk,
                    (long)Math.Max(decision.To, decision.From) - (long)Math.Min(decision.To, decision.From));
            }
            catch (ApiException e)
            {
                problem = e.Message;
            }
        }

        DaemonLog.Balanced(log, decision.Vm, decision.Vnode, new ByteSize(decision.From).ToString(), new ByteSize(decision.To).ToString(),
            decision.Reason, dryRun ? "not done: dry run" : problem ?? "asked");
        lock (_gate)
        {
            _entries.Enqueue(new BalancerEntry(DateTimeOffset.UtcNow, decision.Vm, decision.Vnode, decision.From, decision.To,
                decision.Reason, !dryRun && problem is null, problem));
            while (_entries.Count > Kept)
            {
                _entries.Dequeue();
            }
        }
    }

    private async Task LoopAsync()
    {
        using PeriodicTimer timer = new(_options.Interval);
        try
        {
            while (await timer.WaitForNextTickAsync(_stop.Token).ConfigureAwait(false))
            {
                if (!Info.Enabled)
                {
                    continue;
                }

                try
                {
                    await RoundAsync(_stop.Token).ConfigureAwait(false);
                }
#pragma warning disable CA1031 // A round that fails is told of; the next one looks again.
                catch (Exception e) when (e is not OperationCanceledException)
#pragma warning restore CA1031
                {
                    DaemonLog.BalancerFault(log, e);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The daemon ends.
        }
    }
}
