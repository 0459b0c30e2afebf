using System.Collections.Concurrent;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Pressure;

/// <summary>
/// Tells of what the pressure loop does, in a bounded number of events: one when it begins to take from a VM, one when it begins to give
/// back, one when all is given back, and between them one a minute. The log has every decision. What the host's files say is told once.
/// </summary>
internal sealed class PressureEvents(EventHub events, TimeProvider time)
{
    /// <summary>Kinds of events.</summary>
    internal const string OfVm = "memory-pressure", OfHost = "host-memory";

    private static readonly TimeSpan s_pace = TimeSpan.FromMinutes(1);

    private readonly ConcurrentDictionary<(string Vm, PressureMeans Means), (bool Takes, bool IsEnd, long At)> _told = new();
    private string? _problem;

    /// <summary>Tells when something can no longer be read, and when it can again. Called by one thread at a time.</summary>
    internal void Reading(HostReading reading)
    {
        // Texts of errors may vary from time to time: what matters is whether there is one.
        if (reading.Problem is null == _problem is null)
        {
            return;
        }

        _problem = reading.Problem;
        events.Publish(OfHost, "", message: _problem is null ? "the host's memory can be read again" : Problem(reading));
    }

    /// <summary>Tells of a decision that was carried out, if its turn has come.</summary>
    /// <param name="decision">The decision.</param>
    /// <param name="isEnd">Nothing is taken from the VM any more.</param>
    internal void Decided(PressureDecision decision, bool isEnd)
    {
        (string, PressureMeans) key = (decision.Vm, decision.Means);
        if (_told.TryGetValue(key, out (bool Takes, bool IsEnd, long At) last) && last.Takes == decision.Takes && last.IsEnd == isEnd
            && time.GetElapsedTime(last.At) < s_pace)
        {
            return;
        }

        _told[key] = (decision.Takes, isEnd, time.GetTimestamp());
        string what = decision.Means == PressureMeans.Limit ? "resident limit" : "balloon";
        events.Publish(OfVm, decision.Vm, message:
            $"{what} {PressureSeat.Size(decision.From)} to {PressureSeat.Size(decision.To)}{(isEnd ? ", nothing is taken any more" : "")}: "
            + decision.Reason);
    }

    /// <summary>Forgets VMs that are not these.</summary>
    internal void Keep(IReadOnlyDictionary<string, PressedVm> vms)
    {
        foreach ((string Vm, PressureMeans) key in _told.Keys.Where(key => !vms.ContainsKey(key.Vm)).ToArray())
        {
            _told.TryRemove(key, out _);
        }
    }

    private static string Problem(HostReading reading) => reading.Nodes.Count > 0
        ? reading.Problem!
        : $"{reading.Problem}: nothing is taken from VMs while the host's memory is not known";
}
