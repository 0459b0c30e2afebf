using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;

namespace Vmm.Perf;

/// <summary>One line of the table: our median against the peer's, and the ratio ours/peer.</summary>
/// <param name="AtMost">Goal for the ratio when smaller is better.</param>
/// <param name="AtLeast">Goal for the ratio when bigger is better.</param>
/// <param name="OursAtMost">Goal for our own figure.</param>
internal sealed record Row(string What, string Unit, string PeerName, IReadOnlyList<double> Ours, IReadOnlyList<double> Peer,
    double? AtMost = null, double? AtLeast = null, double? OursAtMost = null)
{
    internal double Ratio => Ours.Count == 0 || Peer.Count == 0 ? double.NaN : Statistics.Median(Ours) / Statistics.Median(Peer);

    internal string Goal => (AtMost, AtLeast, OursAtMost) switch
    {
        _ when Ours.Count == 0 => "",
        ({ } most, _, _) => Judge(Ratio <= most, Invariant($"ratio <= {most:0.##}")),
        (_, { } least, _) => Judge(Ratio >= least, Invariant($"ratio >= {least}")),
        (_, _, { } own) => Judge(Statistics.Median(Ours) <= own, Invariant($"<= {own} {Unit}")),
        _ => "",
    };

    // The programs have no culture but the invariant one (InvariantGlobalization).
    internal static string Invariant(ref DefaultInterpolatedStringHandler text) => text.ToStringAndClear();

    private static string Judge(bool met, string goal) => $"{goal}: {(met ? "met" : "NOT met")}";
}

/// <summary>Medians and quartiles: the machine is noisy, means mislead.</summary>
internal static class Statistics
{
    internal static double Median(IReadOnlyList<double> values) => Quantile(values, 0.5);

    internal static double Quantile(IReadOnlyList<double> values, double q)
    {
        double[] sorted = [.. values.Order()];
        double at = q * (sorted.Length - 1);
        int low = (int)at;
        return sorted[low] + ((at - low) * (sorted[Math.Min(low + 1, sorted.Length - 1)] - sorted[low]));
    }
}

/// <summary>The table, as text for people (markdown) and as JSON with every sample.</summary>
internal sealed class Report(IReadOnlyDictionary<string, string> about, bool goals = true)
{
    private readonly List<Row> _rows = [];
    private readonly List<string> _notes = [];

    internal void Add(Row row) => _rows.Add(goals ? row : row with { AtMost = null, AtLeast = null, OursAtMost = null });

    internal void Note(string text) => _notes.Add(text);

    internal string Markdown()
    {
        StringBuilder text = new();
        foreach ((string key, string value) in about)
        {
            text.Append(CultureInfo.InvariantCulture, $"{key}: {value}  \n");
        }

        text.Append("\n| what | unit | ours: median (quartiles) | peer | peer: median (quartiles) | ours/peer | goal | runs "
            + "|\n|---|---|---|---|---|---|---|---|\n");
        foreach (Row row in _rows)
        {
            string ratio = double.IsNaN(row.Ratio) ? "" : row.Ratio.ToString("0.00", CultureInfo.InvariantCulture);
            text.Append(CultureInfo.InvariantCulture, $"| {row.What} | {row.Unit} | {Spread(row.Ours)} | {row.PeerName} | "
                + $"{Spread(row.Peer)} | {ratio} | {row.Goal} | {row.Peer.Count} |\n");
        }

        foreach (string note in _notes)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n- {note}");
        }

        return text.Append('\n').ToString();
    }

    internal string Json() => JsonSerializer.Serialize(new
    {
        about,
        rows = _rows.Select(r => new
        {
            what = r.What,
            unit = r.Unit,
            peer_name = r.PeerName,
            ours = r.Ours,
            peer = r.Peer,
            ratio = double.IsNaN(r.Ratio) ? (double?)null : r.Ratio,
            goal = r.Goal,
        }),
        notes = _notes,
    }, s_indented);

    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };

    private static string Spread(IReadOnlyList<double> values) => values.Count == 0
        ? "-"
        : $"{Figure(Statistics.Median(values))} ({Figure(Statistics.Quantile(values, 0.25))}-{Figure(Statistics.Quantile(values, 0.75))})";

    private static string Figure(double value) =>
        value.ToString(value >= 1000 ? "0" : value >= 100 ? "0.0" : "0.00", CultureInfo.InvariantCulture);
}
