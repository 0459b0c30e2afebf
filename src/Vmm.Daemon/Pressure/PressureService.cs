using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Pressure;

/// <summary>
/// The pressure loop: reads how the host's memory stands, asks the workers of VMs with a resident limit, asks the policy, and passes its
/// decisions on. What is in force lives in the workers, so that a daemon that comes later goes on from there. Nothing here waits longer
/// than a few seconds, and a VM that does not answer holds nobody up.
/// </summary>
internal sealed class PressureService(
    VmManager vms, PressureOptions options, bool enabled, HostMemoryReader host, ILogger log, TimeProvider time)
    : IHostedService, IDisposable
{
    private const int Kept = 200;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly CancellationTokenSource _stop = new();
    private readonly PressureState _state = new();
    private readonly PressureSampler _sampler = new(vms, time);
    private readonly PressureEvents _events = new(vms.Events, time);
    private readonly Lock _gate = new();
    private readonly Queue<PressureEntry> _entries = new();
    private readonly long _start = time.GetTimestamp();
    private bool _enabled = enabled;
    private bool _hasBalloons; // some balloon has what this loop took
    private HostReading _reading = new([], null);
    private IReadOnlyList<PressureVm> _seen = [];
    private long _rounds, _taken, _given;
    private Task _work = Task.CompletedTask;

    /// <summary>What it sees and decided.</summary>
    internal PressureInfo Info
    {
        get
        {
            lock (_gate)
            {
                HostReading now = _reading;
                return new PressureInfo(
                    _enabled, options.Interval.TotalSeconds, _rounds, ReserveOf(now),
                    [.. now.Nodes.Select(node => new PressureNode(node.Node, node.TotalBytes, node.AvailableBytes))],
                    now.Stall?.Some * 100, now.Stall?.Full * 100, now.Problem, _seen, [.. _entries]);
            }
        }
    }

    /// <summary>Bytes that were taken from VMs and given back to them, so far.</summary>
    internal (long Taken, long Given) Moved => (Interlocked.Read(ref _taken), Interlocked.Read(ref _given));

    /// <inheritdoc/>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        _work = Task.Run(LoopAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    /// <summary>Ends a round that goes on, and waits for that. What is in force stays: the next daemon goes on.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _work.ConfigureAwait(false);
    }

    public void Dispose() => _stop.Dispose();

    /// <summary>Switches it; off, it gives everything back.</summary>
    internal void Set(bool isEnabled)
    {
        lock (_gate)
        {
            if (_enabled == isEnabled)
            {
                return;
            }

            _enabled = isEnabled;
        }

        DaemonLog.PressureSet(log, isEnabled ? "on" : "off: what it took is given back");
    }

    /// <summary>One round.</summary>
    internal async Task RoundAsync(CancellationToken cancellation)
    {
        HostReading reading = host.Read();
        _events.Reading(reading);
        ulong reserve = ReserveOf(reading);
        bool isOn = Info.Enabled;
        bool isShort = isOn && (reading.AvailableBytes < reserve * options.Rules.High || reading.Stall?.Some >= options.Rules.Stall);
        (IReadOnlyList<PressedVm> pressed, IReadOnlyList<PressureVm> alone) =
            await _sampler.ReadAsync(isShort || _hasBalloons, cancellation).ConfigureAwait(false);
        IReadOnlyList<PressureDecision> decisions = PressurePolicy.Decide(
            new PressureSnapshot(reading, reserve, pressed, isOn), _state, options.Rules, time.GetElapsedTime(_start));
        Dictionary<string, PressedVm> byName = pressed.ToDictionary(vm => vm.Vm, StringComparer.Ordinal);
        _events.Keep(byName);
        await Task.WhenAll(decisions.GroupBy(decision => decision.Vm, StringComparer.Ordinal)
            .Select(group => CarryOutAsync(byName[group.Key], [.. group], cancellation))).ConfigureAwait(false);
        _hasBalloons = pressed.Any(vm => vm.Balloon is { Taken: true, Target: > 0 })
            || decisions.Any(decision => decision is { Means: PressureMeans.Balloon, To: > 0 });
        lock (_gate)
        {
            (_reading, _rounds) = (reading, _rounds + 1);
            _seen = [.. pressed.Select(Describe).Concat(alone).OrderBy(vm => vm.Vm, StringComparer.Ordinal)];
        }
    }

    private static PressureVm Describe(PressedVm vm) => new(vm.Vm, vm.Configured, vm.InForce, vm.Least, vm.Resident, vm.Weight,
        vm.Balloon is { Taken: true } balloon ? balloon.Target : 0);

    private ulong ReserveOf(HostReading reading) => options.Rules.ReserveOf(reading.TotalBytes, options.Reserve);

    private async Task CarryOutAsync(PressedVm vm, PressureDecision[] decisions, CancellationToken cancellation)
    {
        foreach (PressureDecision decision in decisions)
        {
            string? problem = null;
            using CancellationTokenSource deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            deadline.CancelAfter(s_patience);
            try
            {
                ManagedVm managed = vms.Get(decision.Vm);
                await (decision.Means == PressureMeans.Balloon
                    ? managed.Memory.PressBalloonAsync(decision.From, decision.To, decision.Reason, deadline.Token)
                    : managed.ResidentLimit.PressAsync(vm.Configured, decision.To, decision.Reason, deadline.Token))
                    .WaitAsync(s_patience, cancellation).ConfigureAwait(false);
            }
            catch (ApiException cause)
            {
                problem = cause.Message;
            }
            catch (Exception cause) when (cause is OperationCanceledException or TimeoutException && !cancellation.IsCancellationRequested)
            {
                problem = "its worker does not answer";
            }

            Record(vm, decision, problem);
        }
    }

    private void Record(PressedVm vm, PressureDecision decision, string? problem)
    {
        ulong moved = Math.Max(decision.From, decision.To) - Math.Min(decision.From, decision.To);
        if (problem is null)
        {
            Interlocked.Add(ref decision.Takes ? ref _taken : ref _given, (long)moved);
            _events.Decided(decision, decision.Means == PressureMeans.Limit ? decision.To >= vm.Configured : decision.To == 0);
        }

        string means = decision.Means == PressureMeans.Limit ? "limit" : "balloon";
        DaemonLog.Pressed(log, decision.Vm, means, PressureSeat.Size(decision.From), PressureSeat.Size(decision.To), problem ?? "done",
            decision.Reason);
        lock (_gate)
        {
            _entries.Enqueue(new PressureEntry(
                time.GetUtcNow(), decision.Vm, means, decision.From, decision.To, decision.Reason,
                problem is null ? null : SafeText.Line(problem)));
            while (_entries.Count > Kept)
            {
                _entries.Dequeue();
            }
        }
    }

    private async Task LoopAsync()
    {
        using PeriodicTimer timer = new(options.Interval);
        try
        {
            while (await timer.WaitForNextTickAsync(_stop.Token).ConfigureAwait(false))
            {
                try
                {
                    await RoundAsync(_stop.Token).ConfigureAwait(false);
                }
#pragma warning disable CA1031 // A round that fails is told of; the next one looks again.
                catch (Exception cause) when (cause is not OperationCanceledException || !_stop.IsCancellationRequested)
#pragma warning restore CA1031
                {
                    DaemonLog.PressureFault(log, cause);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The daemon ends.
        }
    }
}
