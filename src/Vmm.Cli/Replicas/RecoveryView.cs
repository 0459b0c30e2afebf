using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Replicas;

/// <summary>How a replica is shown at the recovery site.</summary>
internal static class RecoveryView
{
    /// <summary>Its points, a row each.</summary>
    internal static int Points(DaemonSession session, RecoveryInfo info)
    {
        if (session.IsJson)
        {
            return session.Json(info, RestJson.Default.RecoveryInfo);
        }

        Table table = new("POINT", "TIME", "GUEST", "LAST", "SIZE", "USED BY");
        foreach (RecoveryPoint point in info.Points)
        {
            table.Add(
                Number(point.Number), Time(point.Time), point.Quiesced ?? "-", point.IsLast ? "yes" : "-", Size(point.Bytes),
                point.UsedBy.Count == 0 ? "-" : string.Join(", ", point.UsedBy));
        }

        return session.Table(table);
    }

    /// <summary>One, a line for each thing.</summary>
    internal static int Show(DaemonSession session, RecoveryInfo info) =>
        session.IsJson ? session.Json(info, RestJson.Default.RecoveryInfo) : session.Properties(
        [
            ("VM", $"{info.Name} ({info.Vm})"),
            ("primary", info.Source),
            ("state", info.FailedOverTo is { } vm ? $"{info.State} to {vm}" : info.State.ToString()),
            ("points", info.Points.Count == 0 ? "none yet"
                : $"{Number(info.Points.Count)}, the newest of {Time(info.Points[^1].Time)}, {Age(info.AgeSeconds ?? 0)} old"),
            ("arriving", info.Arriving is not { } arriving ? "-"
                : arriving.Problem ?? (arriving.Sealing ? "a point is checked" : "a point comes")),
            ("tests", info.Tests.Count == 0 ? "-" : string.Join(", ", info.Tests)),
            ("keep", $"all of {Age(info.Keep.AllSeconds)}, {Number(info.Keep.Hourly)} hourly, {Number(info.Keep.Daily)} daily"),
            ("generation", info.Generations.LastCommon.Length == 0 ? info.Generations.Current
                : $"{info.Generations.Current}, last common {info.Generations.LastCommon}"),
            ("problem", info.Problem ?? "none"),
        ]);

    private static string Age(double seconds) =>
        seconds < 120 ? string.Create(CultureInfo.InvariantCulture, $"{seconds:0} s")
        : seconds < 7200 ? string.Create(CultureInfo.InvariantCulture, $"{seconds / 60:0} min")
        : string.Create(CultureInfo.InvariantCulture, $"{seconds / 3600:0} h");
}
