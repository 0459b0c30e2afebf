using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Replicas;

/// <summary>How replication is shown.</summary>
internal static class ReplicaView
{
    /// <summary>One VM, a line for each thing.</summary>
    internal static int Show(DaemonSession session, ReplicaInfo info) =>
        session.IsJson ? session.Json(info, RestJson.Default.ReplicaInfo) : session.Properties(
        [
            ("VM", info.Vm), ("to", info.To),
            ("state", info.Suspension is { } held ? $"{Word(info.State)}, {Held(held)}" : Word(info.State)),
            ("disks", string.Join(", ", info.Disks)),
            ("interval", $"{Number(info.IntervalSeconds)} s"),
            ("newest point", info.NewestPoint is { } time ? $"{Time(time)}, {Age(info.AgeSeconds)} old" : "none yet"),
            ("worst age", $"{Age(info.WorstAgeSeconds)} in the last hour"),
            ("expected age", info.PredictedAgeSeconds is { } most ? $"at most {Age(most)}, if all goes on so" : "not known yet"),
            ("waits", $"{Size(info.PendingBytes)}, of that {Size(info.SpoolBytes)} cut"),
            ("sent", $"{info.PointsSent.ToString(CultureInfo.InvariantCulture)} points since vmmd started, "
                + $"{Size((ulong)info.BytesPerSecond)} a second"),
            ("last full copy", info.WhyFull ?? "never"),
            ("last error", info.LastError ?? "none"),
            ("generation", info.Generations.LastCommon.Length > 0
                ? $"{info.Generations.Current}, last common {info.Generations.LastCommon}"
                : info.Generations.Current),
        ]);

    /// <summary>All of a host, a row each.</summary>
    internal static int List(DaemonSession session, ReplicaList all)
    {
        Table table = new("VM", "DIRECTION", "OTHER SITE", "STATE", "NEWEST", "AGE", "WAITS", "LAST ERROR");
        foreach (ReplicaInfo info in all.Sent)
        {
            table.Add(
                info.Vm, "to", info.To, Word(info.State), Newest(info.NewestPoint), info.AgeSeconds is { } age ? Age(age) : "-",
                Size(info.PendingBytes), info.Suspension is { } held ? Held(held) : info.LastError ?? "-");
        }

        foreach (RecoveryInfo info in all.Received)
        {
            table.Add(
                info.Name, "from", info.Source, info.State.ToString(), Newest(info.Points.Count > 0 ? info.Points[^1].Time : null),
                info.AgeSeconds is { } age ? Age(age) : "-", "-", info.Problem ?? "-");
        }

        return session.Table(table);
    }

    /// <summary>A length of time, in the unit that people would take.</summary>
    internal static string Age(double? seconds) => seconds switch
    {
        null => "-",
        < 120 => string.Create(CultureInfo.InvariantCulture, $"{seconds:0} s"),
        < 7200 => string.Create(CultureInfo.InvariantCulture, $"{seconds / 60:0} min"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{seconds / 3600:0.#} h"),
    };

    private static string Newest(DateTimeOffset? time) => time is { } at ? Time(at) : "-";

    private static string Held(ReplicaSuspension held) => $"by {held.Owner} until {Time(held.Until)}: {held.Reason}";

    private static string Word(ReplicaState state) => state switch
    {
        ReplicaState.Seeding => "seeding: the first copy goes over",
        ReplicaState.InSync => "in sync",
        ReplicaState.Behind => "behind",
        ReplicaState.Disconnected => "disconnected: the other site does not answer",
        ReplicaState.Resyncing => "resyncing: what differs is looked for",
        ReplicaState.Suspended => "suspended",
        _ => "fenced: the other site has another history",
    };
}
