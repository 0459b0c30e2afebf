using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>The two halves of replication, which fail by themselves.</summary>
internal enum ReplicaWork
{
    /// <summary>Disks are cut.</summary>
    Cut,

    /// <summary>Points are sent.</summary>
    Send,
}

/// <summary>
/// Where the replication of a VM stands, as it is told: its state, ages, what failed. Changes of the state, and the first failure of a row,
/// are events. Thread-safe.
/// </summary>
/// <param name="vm">Name of the VM.</param>
/// <param name="first">Where it stands.</param>
/// <param name="events">Who listens hears.</param>
/// <param name="log">The log.</param>
/// <param name="time">The clock.</param>
internal sealed class ReplicaStatus(string vm, ReplicaState first, EventHub events, ILogger log, TimeProvider time)
{
    private readonly Lock _gate = new();
    private readonly PointClock _clock = new(time);
    private ReplicaState _state = first;
    private readonly (string? Code, string? Text)[] _failing = new (string?, string?)[2];
    private ReplicaSuspension? _own;
    private ulong _sent;

    /// <summary>Where it stands.</summary>
    internal ReplicaState State
    {
        get
        {
            lock (_gate)
            {
                return _state;
            }
        }
    }

    /// <summary>vmmd holds cuts, and why; null: it does not.</summary>
    internal ReplicaSuspension? Own
    {
        get
        {
            lock (_gate)
            {
                return _own is { } held && held.Until > time.GetUtcNow() ? held : null;
            }
        }
    }

    /// <summary>What failed last; null: nothing since it worked.</summary>
    internal string? LastError
    {
        get
        {
            lock (_gate)
            {
                return Error;
            }
        }
    }

    /// <summary>Seconds since the newest point of the other site was cut; null without one.</summary>
    internal double? AgeSeconds
    {
        get
        {
            lock (_gate)
            {
                return _clock.AgeSeconds;
            }
        }
    }

    /// <summary>All that is known.</summary>
    internal ReplicaInfo Tell(ReplicaSettings settings, IReadOnlyList<string> disks, ulong pending, ulong spooled)
    {
        lock (_gate)
        {
            ReplicaSuspension? held = settings.Suspension ?? (_own?.Until > time.GetUtcNow() ? _own : null);
            return new ReplicaInfo(
                vm, settings.To, _state, settings.IntervalSeconds, disks, _clock.Newest, _clock.AgeSeconds, pending, spooled,
                _clock.WorstAgeSeconds, _clock.PredictedAgeSeconds, _clock.BytesPerSecond, _sent, held, Error, settings.WhyFull,
                settings.Generations);
        }
    }

    /// <summary>Something happened.</summary>
    /// <param name="change">What.</param>
    /// <param name="why">Why, for people.</param>
    internal void Apply(ReplicaChange change, string why)
    {
        ReplicaState next;
        lock (_gate)
        {
            if (ReplicaTransitions.Next(_state, change) is not { } to || to == _state)
            {
                return;
            }

            next = _state = to;
        }

        Say("replica-" + Word(next), why);
    }

    /// <summary>Both sites had a point before this vmmd started.</summary>
    internal void Found(DateTimeOffset cut)
    {
        lock (_gate)
        {
            _clock.Found(cut);
        }
    }

    /// <summary>A point is safe at the other site.</summary>
    internal void Arrived(DateTimeOffset cut)
    {
        lock (_gate)
        {
            _clock.Arrived(cut);
            _sent++;
        }
    }

    /// <summary>Bytes are stable at the other site.</summary>
    internal void Sent(ulong bytes)
    {
        lock (_gate)
        {
            _clock.Sent(bytes);
        }
    }

    /// <summary>Something failed, and is tried again. Only the first of a row is an event.</summary>
    /// <param name="work">Of what.</param>
    /// <param name="code">What kind.</param>
    /// <param name="what">What, for people.</param>
    internal void Fail(ReplicaWork work, string code, string what)
    {
        lock (_gate)
        {
            bool isKnown = string.Equals(_failing[(int)work].Code, code, StringComparison.Ordinal);
            _failing[(int)work] = (code, $"{time.GetUtcNow():u} {what}");
            if (isKnown)
            {
                return;
            }
        }

        Say("replica-failed", what);
    }

    /// <summary>A cut has to wait for something that goes on: no failure, and no event.</summary>
    internal void Skipped(string why)
    {
        lock (_gate)
        {
            _failing[(int)ReplicaWork.Cut] = (null, $"{time.GetUtcNow():u} {why}");
        }
    }

    /// <summary>It works.</summary>
    internal void Works(ReplicaWork work)
    {
        lock (_gate)
        {
            _failing[(int)work] = default;
        }
    }

    /// <summary>vmmd holds cuts for a while.</summary>
    internal void Hold(string why, TimeSpan howLong)
    {
        lock (_gate)
        {
            _own = new ReplicaSuspension("vmmd", why, time.GetUtcNow() + howLong);
        }

        Apply(ReplicaChange.Suspended, $"held by vmmd for {howLong.TotalSeconds:0} s: {why}");
    }

    /// <summary>vmmd holds them no longer.</summary>
    internal void Release()
    {
        lock (_gate)
        {
            _own = null;
        }
    }

    private string? Error => _failing[(int)ReplicaWork.Send].Text ?? _failing[(int)ReplicaWork.Cut].Text;

    /// <summary>Tells everybody.</summary>
    internal void Say(string kind, string what)
    {
        events.Publish(kind, vm, message: what);
        DaemonLog.ReplicationTold(log, vm, kind, what);
    }

    private static string Word(ReplicaState state) => state switch
    {
        ReplicaState.InSync => "in-sync",
        _ => state.ToString().ToLowerInvariant(),
    };
}
